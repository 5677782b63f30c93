"""The inflation experiment (``openb.py``) through the pool that production runs, pod by pod.

Each pod is a job of one element. It comes, a pass follows; what the pass did not place is cancelled at
once, and nothing leaves. Ties between nodes go to the first in the seed's order, as columns do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from towline.core.commands import Cancel, NodeUp, Submit
from towline.core.placement.choosing.rules import Rules
from towline.core.pool import Pool
from towline.core.rows import GpuDevice, NodeRow, PoolSnapshot
from towline.model.job import Gpu, JobSpec, Resources, TaskSpec
from towline.simulation.traces.openb import (
    Experiment,
    OpenbNode,
    OpenbPod,
    allocation_at,
    arrived_percent,
    capacity_gpu_milli,
)

PERCENTS = (90, 100, 130)
"""Arrived demand, in % of the GPUs, at which allocation is read."""
_MIB = 1024**2
_PIDS = 1_000_000
_GPU_BYTES = 1024**3  # openb says nothing of a GPU's memory


class Outcome(NamedTuple):
    """``allocation``: GPU allocation in % by arrived demand in %. ``failed``: pods that fitted nowhere."""

    allocation: dict[int, float]
    failed: int
    pods: int


def empty_pool(rules: Rules | None = None) -> Pool:
    """A pool in which nothing has happened yet."""
    nothing = PoolSnapshot(pool="default", term=1, commit_no=0, event_no=0, job_seq=0)
    return Pool.load(nothing, 0, rules)


def replay(experiment: Experiment, rules: Rules, progress: Callable[[int], None] | None = None) -> Outcome:
    """One seed under one policy. ``progress`` is told how many pods have come, now and then."""
    pool = empty_pool(rules)
    for number, node in enumerate(experiment.nodes):
        pool.apply(NodeUp(node=node_row(node, number)), 0)
    pool.collect()
    capacity = capacity_gpu_milli(experiment.nodes)
    allocated: list[int] = []
    held = failed = 0
    for number, pod in enumerate(experiment.pods):
        if place_one(pool, f"p{number}", job_of(pod), number):
            held += pod.total_gpu_milli
        else:
            failed += 1
        allocated.append(held)
        if progress is not None and number % 500 == 0:
            progress(number)
    arrived = arrived_percent(experiment.pods, capacity)
    reached = [percent for percent in PERCENTS if percent in arrived]
    found = {percent: allocation_at(percent, arrived, allocated, capacity) for percent in reached}
    return Outcome(found, failed, len(experiment.pods))


def place_one(pool: Pool, job: str, spec: JobSpec, now_ms: int) -> bool:
    """Submit a job of one element; it is placed now, or cancelled and False is returned."""
    active = pool.active_count
    pool.apply(Submit(job=job, namespace="default", spec=spec), now_ms)
    pool.schedule(now_ms)
    placed = pool.active_count > active
    if not placed:
        pool.apply(Cancel(job=job), now_ms)
    pool.collect()
    return placed


def node_row(node: OpenbNode, number: int) -> NodeRow:
    gpu = GpuDevice(id="", model=node.model, memory_bytes=_GPU_BYTES)
    return NodeRow(
        id=f"{number:06}-{node.name}",
        name=node.name,
        instance="trace",
        state="ready",
        cpu_milli=node.cpu_milli,
        memory_bytes=node.memory_mib * _MIB,
        pids=_PIDS,
        labels={},
        runtimes={"oci": None},
        gpus=tuple(
            GpuDevice(id=str(at), model=gpu.model, memory_bytes=_GPU_BYTES) for at in range(node.gpus)
        ),
    )


def job_of(pod: OpenbPod) -> JobSpec:
    gpu = Gpu(count=pod.gpus, milli=pod.gpu_milli, model=pod.models) if pod.gpus else None
    asked = Resources(cpu_milli=pod.cpu_milli, memory_bytes=pod.memory_mib * _MIB, pids=1, gpu=gpu)
    return JobSpec(name="pod", tasks={"pod": TaskSpec(image="oci:trace", resources=asked)})


def means(outcomes: Sequence[Outcome]) -> tuple[dict[int, float], float]:
    """Over seeds: allocation in % by arrived demand, where every seed has it; and failed pods."""
    common = [at for at in PERCENTS if all(at in one.allocation for one in outcomes)]
    allocation = {at: sum(one.allocation[at] for one in outcomes) / len(outcomes) for at in common}
    return allocation, sum(one.failed for one in outcomes) / len(outcomes)
