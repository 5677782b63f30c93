"""The figures of a replay, from its record."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from towline.core.queues.amounts import CPU, GPU, MEMORY
from towline.simulation.replay.record import Record, Start
from towline.simulation.replay.samples import Fairness

FLOOR_MS = 10_000
"""Bounded slowdown takes shorter runs as so long (Feitelson and Rudolph, 1998)."""
_DIGITS = 3


class FairnessView(Struct, kw_only=True):
    """Means over the times at which at least two had something waiting."""

    jain: float
    largest_deviation: float


class ReplayView(Struct, kw_only=True):
    """What ``--json`` shows of one policy (docs/guides/json.md). Unknown values are null."""

    mean_wait_s: float
    mean_bounded_slowdown: float
    max_wait_s: float
    utilisation: float
    p50_wait_s: float
    p95_wait_s: float
    memory_utilisation: float
    gpu_allocation: float | None
    gpu_fragmentation: float | None
    fairness_between_users: FairnessView | None
    fairness_between_queues: FairnessView | None
    jobs: int
    elements: int
    started: int
    unfinished_jobs: int
    left_out: int
    guessed_lengths: int
    length_s: float


def report(record: Record) -> ReplayView:
    waits = sorted(start.wait_ms for start in record.starts)
    parts = [_part(record, at) for at in (CPU, MEMORY, GPU)]
    fragmentation = [each.fragmentation for each in record.samples if each.fragmentation is not None]
    workload = record.workload
    return ReplayView(
        mean_wait_s=_seconds(_mean(waits)),
        mean_bounded_slowdown=round(_mean([slowdown(start) for start in record.starts]), _DIGITS),
        max_wait_s=_seconds(waits[-1] if waits else 0),
        utilisation=round(parts[0] or 0.0, _DIGITS),
        p50_wait_s=_seconds(percentile(waits, 50)),
        p95_wait_s=_seconds(percentile(waits, 95)),
        memory_utilisation=round(parts[1] or 0.0, _DIGITS),
        gpu_allocation=None if parts[2] is None else round(parts[2], _DIGITS),
        gpu_fragmentation=round(_mean(fragmentation), _DIGITS) if fragmentation else None,
        fairness_between_users=_fairness([each.users for each in record.samples]),
        fairness_between_queues=_fairness([each.queues for each in record.samples]),
        jobs=len(workload.submissions),
        elements=workload.elements,
        started=len(record.starts),
        unfinished_jobs=len(record.unfinished),
        left_out=workload.left_out,
        guessed_lengths=workload.guessed,
        length_s=_seconds(record.length_ms),
    )


def slowdown(start: Start) -> float:
    """Bounded slowdown: 1 without a wait."""
    return max(1.0, (start.wait_ms + start.run_ms) / max(start.run_ms, FLOOR_MS))


def percentile(ordered: Sequence[int], percent: int) -> int:
    """The smallest value that at least so many % of them do not exceed; 0 of nothing."""
    if not ordered:
        return 0
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def _part(record: Record, resource: int) -> float | None:
    """The part of a resource that was held, over the whole time; None where the cluster has none."""
    capacity = record.capacity[resource]
    return record.integral[resource] / (capacity * record.length_ms) if capacity else None


def _fairness(found: Sequence[Fairness | None]) -> FairnessView | None:
    known = [each for each in found if each is not None]
    if not known:
        return None
    jain, deviation = _mean([each.jain for each in known]), _mean([each.deviation for each in known])
    return FairnessView(jain=round(jain, _DIGITS), largest_deviation=round(deviation, _DIGITS))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _seconds(value_ms: float) -> float:
    return round(value_ms / 1000, _DIGITS)
