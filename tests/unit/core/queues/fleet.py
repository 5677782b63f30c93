"""A pool in virtual time: elements end when their length is over, and what is queued takes their place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from tests.unit.core.driver import empty, node_row

from towline.core.commands import AttemptUpdate, Command, NodeUp, Report, StartOrder, Submit, attempt_id
from towline.core.pool import Pool
from towline.core.queues.amounts import SCALE
from towline.core.rows import NodeRow
from towline.model.job import Array, Gpu, JobSpec, Limit, Resources, TaskSpec

GIB = 2**30
Length = Callable[[str, int], int]
"""(job, index) to milliseconds."""


def machine(name: str = "n1", cpu: int = 16, memory_gib: int = 64) -> NodeRow:
    row = node_row(name, cpu_milli=cpu * 1000)
    row.memory_bytes, row.pids = memory_gib * GIB, 1_000_000
    return row


def element(
    cpu: float = 1, memory_gib: float = 1, size: int = 1, gpu: Gpu | None = None, limit: Limit | None = None
) -> TaskSpec:
    asked = Resources(cpu_milli=int(cpu * 1000), memory_bytes=int(memory_gib * GIB), pids=1, gpu=gpu)
    array = Array(first=0, last=size - 1)
    return TaskSpec(runtime="process", command=("true",), resources=asked, array=array, limit=limit)


class Fleet:
    """``lengths`` says how long each element runs; ``started`` is when, by (job, index)."""

    def __init__(self, nodes: Iterable[NodeRow], lengths: Length) -> None:
        self.now_ms = 1_000_000
        self.pool = Pool.load(empty(), self.now_ms)
        self.lengths = lengths
        self.started: dict[tuple[str, int], int] = {}
        self.ends: list[tuple[int, str, int, int, int, str]] = []
        self.step(*(NodeUp(node=row) for row in nodes))

    def step(self, *commands: Command) -> None:
        for command in commands:
            self.pool.apply(command, self.now_ms)
        self.pool.schedule(self.now_ms)
        for order in self.pool.collect()[1]:
            if isinstance(order, StartOrder):
                self.started.setdefault((order.job, order.index), self.now_ms)
                ends_at = self.now_ms + self.lengths(order.job, order.index)
                key = (order.job, order.task, order.index, order.number)
                heappush(self.ends, (ends_at, *key, order.node))

    def submit(self, job: str, spec: TaskSpec, queue: str = "default", **more: object) -> None:
        namespace = str(more.pop("namespace", "default"))
        made = JobSpec(name=job, tasks={"t": spec}, queue=queue, **more)  # type: ignore[arg-type]
        self.step(Submit(job=job, namespace=namespace, spec=made))

    def run_until(self, until_ms: int) -> None:
        """Let time pass, and what ends in it end."""
        while self.ends and self.ends[0][0] <= until_ms:
            self.now_ms = self.ends[0][0]
            commands: list[Command] = []
            while self.ends and self.ends[0][0] == self.now_ms:
                _, job, task, index, number, node = heappop(self.ends)
                name = attempt_id((job, task, index, number))
                update = AttemptUpdate(attempt=name, state="finished", reason="exited", exit_code=0)
                commands.append(Report(node=node, updates=(update,)))
            self.step(*commands)
        self.now_ms = max(self.now_ms, until_ms)

    def share(self, queue: str) -> float:
        """A queue's dominant share now."""
        state = self.pool.state
        return state.queues.queues[queue].share(state.capacity) / SCALE
