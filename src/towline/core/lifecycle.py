"""Every legal transition, in one place; any other is a bug and raises. And which ends are tried again.

The diagram in docs/ARCHITECTURE.md is drawn from these tables by ``diagram``.
"""

from __future__ import annotations

from zlib import crc32

from towline.model.job import Backoff, Retries
from towline.model.states import RETRYABLE
from towline.model.states import AttemptState as A
from towline.model.states import ElementState as E
from towline.model.states import JobState as J

ELEMENT: dict[tuple[str, str], str] = {
    (E.WAITING, E.QUEUED): "its needs have succeeded",
    (E.WAITING, E.SKIPPED): "a need failed",
    (E.WAITING, E.CANCELLED): "cancelled",
    (E.QUEUED, E.ACTIVE): "placed, or a lost attempt taken back",
    (E.QUEUED, E.SUCCEEDED): "a lost attempt's success arrived",
    (E.QUEUED, E.FAILED): "a lost attempt's failure arrived",
    (E.QUEUED, E.CANCELLED): "cancelled",
    (E.QUEUED, E.SKIPPED): "a need failed",
    (E.ACTIVE, E.QUEUED): "retry, preemption or lost node",
    (E.ACTIVE, E.SUCCEEDED): "exit code 0",
    (E.ACTIVE, E.FAILED): "no retry left",
    (E.ACTIVE, E.CANCELLED): "cancelled",
    (E.FAILED, E.QUEUED): "run again on request",
    (E.CANCELLED, E.QUEUED): "run again on request",
    (E.CANCELLED, E.WAITING): "run again on request, never placed",
    (E.SKIPPED, E.WAITING): "what it needs runs again",
}

ATTEMPT: dict[tuple[str, str], str] = {
    (A.ASSIGNED, A.PREPARING): "the node has it",
    (A.ASSIGNED, A.RUNNING): "started",
    (A.ASSIGNED, A.FINISHED): "ended",
    (A.ASSIGNED, A.LOST): "node lost",
    (A.PREPARING, A.RUNNING): "started",
    (A.PREPARING, A.FINISHED): "ended",
    (A.PREPARING, A.LOST): "node lost",
    (A.RUNNING, A.FINISHED): "ended",
    (A.RUNNING, A.LOST): "node lost",
    (A.LOST, A.RUNNING): "taken back",
    (A.LOST, A.FINISHED): "taken back, ended",
}

JOB: dict[tuple[str, str], str] = {
    (J.RUNNING, J.SUCCEEDED): "all succeeded",
    (J.RUNNING, J.FAILED): "one failed",
    (J.RUNNING, J.CANCELLED): "cancelled",
    (J.RUNNING, J.QUARANTINED): "internal error",
    (J.QUARANTINED, J.CANCELLED): "cancelled",
    (J.FAILED, J.RUNNING): "run again on request",
    (J.CANCELLED, J.RUNNING): "run again on request",
}

ENDS = (E.SKIPPED, E.CANCELLED, E.SUCCEEDED, E.FAILED, A.FINISHED)
"""Where something may rest for ever (jobs use the words of elements)."""


def check(table: dict[tuple[str, str], str], old: str, new: str) -> None:
    """Raise AssertionError unless ``table`` has the step from ``old`` to ``new``."""
    if (old, new) not in table:
        raise AssertionError(f"no transition from {old} to {new}")


def diagram(table: dict[tuple[str, str], str], start: str) -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {start}"]
    lines += [f"    {old} --> {new}: {why}" for (old, new), why in table.items()]
    ends = dict.fromkeys(new for _, new in table if new in ENDS)
    lines += [f"    {end} --> [*]" for end in ends]
    return "\n".join(lines)


# --- what is tried again --------------------------------------------------------------------------
def may_retry(retries: Retries, reason: str, failures: int) -> bool:
    """Whether ``failures`` tries that ended so (this one included) leave another."""
    on = RETRYABLE if retries.on is None else retries.on
    return failures <= retries.limit and reason in on


def may_repeat_lost(retries: Retries, losses: int) -> bool:
    """Whether ``losses`` lost attempts (this one included) leave another."""
    return losses <= retries.lost


def backoff_ms(backoff: Backoff, failures: int, attempt: str) -> int:
    """How long the retry after failure number ``failures`` (1, 2, …) waits.

    The jitter is drawn from the attempt's id, so that a replay draws the same and equal tasks
    that failed together do not come back together.
    """
    # The exponent is capped: a float overflows at 2**1024, long after max_ms has taken over.
    wait = min(backoff.first_ms * backoff.factor ** min(failures - 1, 60), float(backoff.max_ms))
    draw = crc32(attempt.encode()) / 2**32
    return max(1, int(wait * (1 + backoff.jitter * (2 * draw - 1))))
