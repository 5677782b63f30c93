"""Age and expected length: the last word of the order inside a queue.

The score of what waits is

    (wait / expected length)² × urgency / √size

where urgency is the expected 1 / length (``core.expected``). Its last two factors and one of the
lengths are Smith's rule for slowdown (weight over work: waiting for a millisecond adds 1 / length of
slowdown, and length × size of the machine must be given for it); the others make it rise with the
square of the expected slowdown so far, so that nothing is passed for long by what came much later.
The exponents are whole and half numbers around which the results are flat; see
``docs/decisions/0007-order-and-backfill.md``.

Scores alone bound no wait. What has waited for longer than its patience, the time in which a
perfectly packed pool would have served everything before it first come, first served, goes before
all that has not, in the order in which patience ended. No constant is in it but the backlog's own.

All in integers: log2 in 1024ths, from a table that is made without floats.
"""

from __future__ import annotations

from towline.core.expected import Expected

AgeKey = tuple[int, int]
"""Lower goes first. (0, when patience ended) or (1, -score)."""

ONE_S = 1000
_UNKNOWN = Expected.of(60 * ONE_S, None)
_STEP_BITS = 10
_STEPS = 1 << _STEP_BITS


def _log2_of_mantissa(numerator: int) -> int:
    """1024 × log2(numerator / 1024) for 1024 <= numerator < 2048, rounded down: bit by bit, by squaring."""
    value, result = numerator << 50, 0
    for _ in range(_STEP_BITS):
        value = value * value >> 60
        result <<= 1
        if value >> 61:
            value >>= 1
            result += 1
    return result


_MANTISSAS = [_log2_of_mantissa(_STEPS + at) for at in range(_STEPS)]


def log2_1024ths(value: int) -> int:
    """1024 × log2 of a whole number from 1 on, rounded down; exact to about 3 / 1024."""
    octave = value.bit_length() - 1
    scaled = value >> (octave - _STEP_BITS) if octave >= _STEP_BITS else value << (_STEP_BITS - octave)
    return octave * _STEPS + _MANTISSAS[scaled - _STEPS]


def standing(expected: Expected | None, size: int) -> int:
    """The part of a score that time does not change, in 1024ths of an octave.

    ``size``: the dominant share of the pool that one element asks for, in any fixed unit, at least 1.
    Made once for a group of equal elements, and anew when ``Lengths.version`` rises. Where nothing
    at all is known of the length, it is taken for a minute.
    """
    if expected is None:
        expected = _UNKNOWN
    return log2_1024ths(expected.urgency) - 2 * log2_1024ths(expected.mean_ms) - log2_1024ths(size) // 2


def age_key(now_ms: int, submitted_at: int, patient_until: int, standing: int) -> AgeKey:
    """The place of an element in its queue, behind priority and usage; lower goes first."""
    if now_ms >= patient_until:
        return 0, patient_until
    # The second keeps what has just come comparable.
    return 1, -(2 * log2_1024ths(max(now_ms - submitted_at, 0) + ONE_S) + standing)


class Backlog:
    """The work that is queued and running, in size × milliseconds: three sums, whatever the number.

    Sizes are dominant shares in the unit in which ``capacity`` is the whole pool. The length of an
    element is the most that it is let run (its timeout), or, without one, twice what is expected:
    patience should err on the long side.
    """

    __slots__ = ("_queued", "_running", "_until")

    def __init__(self) -> None:
        self._queued = 0
        self._running = 0
        self._until = 0

    def queued(self, size: int, length_ms: int, count: int = 1) -> None:
        """Elements joined the queue; with a negative count, left it (started, or cancelled)."""
        self._queued += size * length_ms * count

    def started(self, size: int, until_ms: int) -> None:
        """An element that ends by ``until_ms``, as far as is known, has started."""
        self._running += size
        self._until += size * until_ms

    def ended(self, size: int, until_ms: int) -> None:
        """It has ended; with the ``until_ms`` it was started with."""
        self._running -= size
        self._until -= size * until_ms

    def patience_ms(self, now_ms: int, length_ms: int, capacity: int) -> int:
        """How long an element that comes now should wait at most: until all that is before it would
        be done, and once its own length."""
        ahead = self._queued + max(self._until - now_ms * self._running, 0)
        return ahead // max(capacity, 1) + length_ms
