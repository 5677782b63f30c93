"""Dominant shares of 20 queues of equal weight that all have more to run than fits, after ten minutes of
virtual time, by what DRF would give them if elements could be divided at will."""

from __future__ import annotations

import random
from heapq import heappop, heappush

from benchmarks.scheduler.rows import Row
from towline.core.commands import AttemptUpdate, NodeUp, SetQueue, StartOrder, Submit, attempt_id
from towline.core.commands import Report as Ended
from towline.core.pool import Pool
from towline.core.queues.amounts import SCALE
from towline.core.rows import NodeRow, PoolSnapshot
from towline.model.job import Array, JobSpec, Resources, TaskSpec

QUEUES, NODES, CPUS, GIB_A_NODE = 20, 50, 64, 256
MINUTES = 10
STEP_MS = 1000
LENGTHS_MS = (60_000, 180_000)
_GIB = 2**30

Demand = tuple[int, int]
"""Milli-CPUs and GiB of one element."""


def rows() -> list[Row]:
    demands = _demands(random.Random(5))
    ideal = ideal_share(demands)
    off = [abs(share / ideal - 1) for share in shares_after(demands, MINUTES * 60_000)]
    note = f"the furthest of {QUEUES} queues with {QUEUES} mixes of CPUs and memory, {NODES} nodes"
    return [
        Row(
            measure="dominant shares off DRF's ideal, after 10 minutes",
            unit="%",
            ours=100 * max(off),
            must=2,
            aim=1,
            peers="DRF's ideal",
            lower=True,
            note=note,
        )
    ]


def _demands(rng: random.Random) -> list[Demand]:
    return [(rng.choice((250, 500, 1000, 2000)), rng.choice((1, 2, 4, 8))) for _ in range(QUEUES)]


def ideal_share(demands: list[Demand]) -> float:
    """The dominant share that all queues have when the first resource is used up: every element asks for
    both, so nobody gets any further than that."""
    cpu, memory = NODES * CPUS * 1000, NODES * GIB_A_NODE
    parts = [(milli / cpu, gib / memory) for milli, gib in demands]
    per_share = [(a / max(a, b), b / max(a, b)) for a, b in parts]
    return 1 / max(sum(a for a, _ in per_share), sum(b for _, b in per_share))


def shares_after(demands: list[Demand], until_ms: int) -> list[float]:
    """Of each queue, when elements of random lengths have come and gone for so long."""
    rng = random.Random(6)
    pool = Pool.load(PoolSnapshot(pool="default", term=1, commit_no=0, event_no=0, job_seq=0), 0)
    for at in range(NODES):
        pool.apply(NodeUp(node=_node(f"n{at}")), 0)
    for at, demand in enumerate(demands):
        pool.apply(SetQueue(name=f"q{at:02}"), 0)
        pool.apply(Submit(job=f"j{at}", namespace="default", spec=_job(demand, f"q{at:02}")), 0)
    ends: list[tuple[int, str, str]] = []
    for now_ms in range(0, until_ms + 1, STEP_MS):
        while ends and ends[0][0] <= now_ms:
            at_ms, attempt, node = heappop(ends)
            update = AttemptUpdate(
                attempt=attempt, state="finished", reason="exited", exit_code=0, finished_at=at_ms
            )
            pool.apply(Ended(node=node, updates=(update,)), now_ms)
        pool.schedule(now_ms)
        for order in pool.collect()[1]:
            assert isinstance(order, StartOrder)
            name = attempt_id((order.job, order.task, order.index, order.number))
            heappush(ends, (now_ms + rng.randrange(*LENGTHS_MS), name, order.node))
    state = pool.state
    return [state.queues.queues[f"q{at:02}"].share(state.capacity) / SCALE for at in range(len(demands))]


def _node(name: str) -> NodeRow:
    return NodeRow(
        id=name,
        name=name,
        instance="i",
        state="ready",
        cpu_milli=CPUS * 1000,
        memory_bytes=GIB_A_NODE * _GIB,
        pids=1_000_000,
        labels={},
        runtimes={"process": None},
    )


def _job(demand: Demand, queue: str) -> JobSpec:
    asked = Resources(cpu_milli=demand[0], memory_bytes=demand[1] * _GIB, pids=1)
    task = TaskSpec(runtime="process", command=("true",), resources=asked, array=Array(first=0, last=999_999))
    return JobSpec(name="mixed", tasks={"work": task}, queue=queue)
