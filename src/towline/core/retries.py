"""Whether an attempt's end is a try to repeat, and how long to wait before it."""

from __future__ import annotations

from zlib import crc32

from towline.model.job import Backoff, Retries
from towline.model.states import RETRYABLE


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
