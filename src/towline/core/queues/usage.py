"""What namespaces have used of the pool, forgotten by half every half-life; fixed-point integers.

Usage is dominant share (in millionths of the pool) times milliseconds. It grows while elements are
active, at the rate of the share that they hold, and is exact at every change of what is held.
"""

from __future__ import annotations

from towline.core.queues.amounts import NAMES, SCALE, Amounts, dominant
from towline.core.rows import UsageRow

HALF_LIFE_MS = 24 * 3_600_000
MILLIONTHS = 1_000_000

_STEPS = 4096
_ONE = 1 << 32
# 2**-(i/4096) in 32 bits, by integers alone: the same table in every process. The root of a half is
# found bit by bit, its powers by repeated multiplication.


def _table() -> list[int]:
    lo, hi = 0, _ONE << 32
    while hi - lo > 1:
        middle = (lo + hi) // 2
        if _power(middle, _STEPS) * 2 <= _ONE << 32:
            lo = middle
        else:
            hi = middle
    table, value = [_ONE], _ONE << 32
    for _ in range(_STEPS - 1):
        value = value * lo >> 64
        table.append(value >> 32)
    return table


def _power(base: int, exponent: int) -> int:
    """``base**exponent`` of numbers with 64 bits behind the point."""
    value = 1 << 64
    while exponent:
        if exponent & 1:
            value = value * base >> 64
        base = base * base >> 64
        exponent >>= 1
    return value


_DECAY = _table()


def steps(at_ms: int, half_life_ms: int) -> int:
    """The number of the decay step that a time lies in. Usage decays between steps only, each at most
    a few seconds long, so that settling it often forgets as much as settling it once."""
    return at_ms * _STEPS // half_life_ms


def decayed(usage: int, count: int) -> int:
    """What is left of ``usage`` after ``count`` steps, of which a half-life has ``_STEPS``."""
    if count <= 0 or not usage:
        return usage
    halves, rest = divmod(count, _STEPS)
    return (usage * _DECAY[rest] >> 32) >> min(halves, 256)


class Usage:
    """One namespace: what it holds now, and what it has used as of ``at``."""

    __slots__ = ("at", "held", "namespace", "used")

    def __init__(self, namespace: str, used: int, at: int) -> None:
        self.namespace = namespace
        self.used = used
        self.at = at
        self.held = [0] * len(NAMES)

    def settle(self, now_ms: int, capacity: list[int], half_life_ms: int) -> None:
        """Bring ``used`` up to now. Does nothing within one millisecond."""
        passed_ms = now_ms - self.at
        if passed_ms <= 0:
            return
        self.used = self.expected(now_ms, capacity, half_life_ms)
        self.at = now_ms

    def expected(self, now_ms: int, capacity: list[int], half_life_ms: int) -> int:
        """What ``settle`` would make of ``used``, without doing it."""
        passed_ms = max(0, now_ms - self.at)
        share, _ = dominant(self.held, capacity)
        fresh = share * MILLIONTHS // SCALE * passed_ms
        count = steps(now_ms, half_life_ms) - steps(self.at, half_life_ms)
        # What was used during the time has itself decayed by half the time's worth on the average.
        return decayed(self.used, count) + decayed(fresh, count // 2)

    def hold(self, asked: Amounts, count: int) -> None:
        held = self.held
        for at, amount in enumerate(asked):
            held[at] += amount * count

    def row(self) -> UsageRow:
        return UsageRow(namespace=self.namespace, usage=self.used, at=self.at)


class Usages:
    """All namespaces of a pool."""

    def __init__(self, half_life_ms: int = HALF_LIFE_MS) -> None:
        self.half_life_ms = half_life_ms
        self.namespaces: dict[str, Usage] = {}

    def of(self, namespace: str, now_ms: int) -> Usage:
        usage = self.namespaces.get(namespace)
        if usage is None:
            usage = self.namespaces[namespace] = Usage(namespace, 0, now_ms)
        return usage

    def load(self, row: UsageRow) -> None:
        self.namespaces[row.namespace] = Usage(row.namespace, row.usage, row.at)

    def settle(self, now_ms: int, capacity: list[int]) -> None:
        """Bring all up to now: the capacity, of which shares are taken, is about to change."""
        for usage in self.namespaces.values():
            usage.settle(now_ms, capacity, self.half_life_ms)
