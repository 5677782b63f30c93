"""How long an element will run: what it says of itself, else what attempts like it took.

A record keeps the run times of one kind of attempt as a histogram with two buckets an octave, in
which older attempts fade; its memory is the same however many attempts it has seen. Kinds go from
coarse to fine (the pool, a namespace, a task name of that namespace); the coarser record stands in
for one observation of the finer one, so that a name that is new is judged by its namespace.

From a distribution, and not from a single guess, come three numbers: the expected length, the
expected length of what has run for a while already (the correction that Tsafrir, Etsion and
Feitelson, "Backfilling Using System-Generated Predictions Rather than User Runtime Estimates", IEEE
TPDS 18(6), 2007, need once an attempt outlives its prediction), and the urgency: the mean of
1 / length, the slowdown that a millisecond of waiting is expected to add.

All in integers, so that every process gives the same answers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import isqrt

import numpy as np
from numpy.typing import NDArray

Key = tuple[str, ...]
"""A kind of attempts; () is the pool's."""

Weights = NDArray[np.int64]

BUCKETS = 76
"""Two an octave from 1 ms on: up to 2**38 ms, which is eight years."""

SLOWDOWN_FLOOR_MS = 10_000
"""Bounded slowdown takes what is shorter for this long (Feitelson and Rudolph, 1998)."""

URGENCY_SCALE = 1 << 40
"""The urgency of what runs for one millisecond, had bounded slowdown no floor."""

MAX_KINDS = 20_000
"""Records kept; the one that has learnt nothing for the longest time makes room."""

_ONE = 1 << 20
_CERTAIN = 1 << 24
_POOL_FADE, _FADE = 10, 4
_PUBLISH_EVERY = 64


def bucket_of(length_ms: int) -> int:
    """The bucket of a length: 2 × log2, rounded down."""
    length_ms = max(length_ms, 1)
    octave = length_ms.bit_length() - 1
    upper = length_ms * length_ms >= 1 << (2 * octave + 1)
    return min(2 * octave + upper, BUCKETS - 1)


_MIDDLES = np.array([isqrt(isqrt(1 << (2 * at + 1))) for at in range(BUCKETS)], dtype=np.int64)
_LONGEST = int(_MIDDLES[-1])


class Expected:
    """What is known of the length of an element that has not run yet.

    ``mean_ms``: the expected length. ``urgency``: the mean of ``URGENCY_SCALE`` / length, at least 1.
    """

    __slots__ = ("_lengths", "_limit_ms", "_mass", "_moment", "_weights", "mean_ms", "urgency")

    def __init__(self, lengths: Weights, weights: Weights, limit_ms: int | None) -> None:
        self._limit_ms = limit_ms
        self._lengths = lengths
        self._weights = weights
        self._mass: list[int] | None = None
        self._moment: list[int] = []
        total = int(weights.sum())
        self.mean_ms = max(int(weights @ lengths) // total, 1)
        rates = URGENCY_SCALE // np.maximum(lengths, SLOWDOWN_FLOOR_MS)
        self.urgency = max(int(weights @ rates) // total, 1)

    @classmethod
    def of(cls, length_ms: int, limit_ms: int | None) -> Expected:
        """A length that somebody has stated."""
        length_ms = max(1, length_ms if limit_ms is None else min(length_ms, limit_ms))
        lengths = np.array([min(length_ms, _LONGEST)], dtype=np.int64)
        return cls(lengths, np.array([_CERTAIN], dtype=np.int64), limit_ms)

    def total_ms(self, elapsed_ms: int) -> int:
        """The expected length, in all, of an attempt that has run for so long and runs still.

        More than ``elapsed_ms`` in any case. What has outlived all that was known is expected to run
        as long again, within its timeout.
        """
        if self._mass is None:
            self._mass = [int(value) for value in np.cumsum(self._weights[::-1])[::-1]]
            moments = self._weights * self._lengths
            self._moment = [int(value) for value in np.cumsum(moments[::-1])[::-1]]
        at = bisect_right(self._lengths, elapsed_ms)
        if at < len(self._mass) and self._mass[at]:
            return max(self._moment[at] // self._mass[at], elapsed_ms + 1)
        doubled = 2 * max(elapsed_ms, 1)
        return max(elapsed_ms + 1, doubled if self._limit_ms is None else min(doubled, self._limit_ms))

    def longest_ms(self, elapsed_ms: int) -> int:
        """The most that it will run, in all: its timeout; without one, as ``total_ms``. For promises
        that an expectation must not break."""
        if self._limit_ms is None:
            return self.total_ms(elapsed_ms)
        return max(self._limit_ms, elapsed_ms + 1)


class Record:
    """The run times of one kind. ``fade``: an attempt takes 2**-fade of the weight of those before."""

    __slots__ = ("_fade", "_publish_every", "counts", "published", "seen", "version")

    def __init__(self, fade: int, publish_every: int = 1) -> None:
        self.counts: dict[int, int] = {}
        """By bucket; most kinds fill a few."""
        self.seen = 0
        self.version = 0
        self.published = self.counts
        """What is read. It lags where everything would be read anew after each attempt of the pool."""
        self._fade = fade
        self._publish_every = publish_every

    def learn(self, bucket: int) -> None:
        counts, fade = self.counts, self._fade
        for at, count in counts.items():
            counts[at] = count - (count >> fade)
        counts[bucket] = counts.get(bucket, 0) + _ONE
        self.seen += 1
        if self.seen % self._publish_every == 0 or self.seen & (self.seen - 1) == 0:
            self.publish()

    def publish(self) -> None:
        if self._publish_every > 1:
            self.published = self.counts.copy()
        self.version += 1

    def weights(self) -> Weights:
        """What is published, all buckets."""
        found = np.zeros(BUCKETS, dtype=np.int64)
        for at, count in self.published.items():
            found[at] = count
        return found


class Lengths:
    """What a pool has learnt of run times. The same calls give the same answers in every process."""

    def __init__(self) -> None:
        self._records: dict[Key, Record] = {(): Record(_POOL_FADE, _PUBLISH_EVERY)}

    def learn(self, kinds: Sequence[Key], run_ms: int) -> list[tuple[Key, int]]:
        """An attempt has ended by itself or at its timeout after ``run_ms``. (What was cancelled,
        preempted or lost tells nothing.) ``kinds``: from coarse to fine, without the pool's.
        Returns of each, the pool's first, how many attempts it has learnt from."""
        bucket, records = bucket_of(run_ms), self._records
        pool = records[()]
        pool.learn(bucket)
        seen: list[tuple[Key, int]] = [((), pool.seen)]
        for kind in kinds:
            record = records.pop(kind, None) or Record(_FADE)
            record.learn(bucket)
            records[kind] = record
            seen.append((kind, record.seen))
        while len(records) > MAX_KINDS + 1:
            oldest = iter(records)
            next(oldest)  # the pool's stays
            del records[next(oldest)]
        return seen

    def version(self, kinds: Sequence[Key]) -> int:
        """Rises when ``expected`` for these kinds may have changed: whoever keeps an answer asks this."""
        found = self._records.get
        version = self._records[()].version
        for kind in kinds:
            record = found(kind)
            if record is not None:
                version += record.version
        return version

    def expected(self, kinds: Sequence[Key], stated_ms: int | None, limit_ms: int | None) -> Expected | None:
        """``stated_ms``: the task's own ``expect``, which is believed until an attempt outlives it.
        ``limit_ms``: its timeout; no attempt takes longer. None where nothing at all is known."""
        if stated_ms is not None:
            return Expected.of(stated_ms, limit_ms)
        weights = self._mixed(kinds)
        if weights is None:
            return None if limit_ms is None else Expected.of(limit_ms, limit_ms)
        lengths = _MIDDLES if limit_ms is None else np.minimum(_MIDDLES, max(limit_ms, 1))
        return Expected(lengths, weights, limit_ms)

    def _mixed(self, kinds: Sequence[Key]) -> Weights | None:
        mixed: Weights | None = None
        for kind in ((), *kinds):
            record = self._records.get(kind)
            if record is not None and record.version:
                mixed = _mix(record.weights(), mixed)
        return mixed

    def kept(self, kind: Key) -> tuple[int, dict[int, int]]:
        """What ``dump`` says of one kind: attempts seen, and counts by bucket."""
        record = self._records[kind]
        return record.seen, {at: count for at, count in sorted(record.counts.items()) if count}

    def dump(self) -> list[tuple[Key, int, dict[int, int]]]:
        """Everything learnt, to be kept over a takeover: kind, attempts seen, counts by bucket; the
        kind that learnt last stands last."""
        return [(kind, *self.kept(kind)) for kind in self._records]

    def load(self, rows: Sequence[tuple[Key, int, dict[int, int]]]) -> None:
        """Take over what another process dumped, in its order."""
        for kind, seen, counts in rows:
            record = Record(_POOL_FADE, _PUBLISH_EVERY) if kind == () else Record(_FADE)
            record.seen = seen
            record.counts.update(counts)
            if seen:
                record.publish()
            self._records[kind] = record


def _mix(counts: Weights, coarser: Weights | None) -> Weights:
    """A distribution (its sum is about ``_CERTAIN``) from counts and, as one observation, a coarser one."""
    total = int(counts.sum())
    if coarser is None:
        return counts * _CERTAIN // total
    return (counts * _CERTAIN + coarser * _ONE) // (total + _ONE)
