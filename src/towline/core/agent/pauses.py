"""How long an agent waits before it tries to link again: full jitter, so that many do not come at once.

After M. Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015): a random part of a bound
that doubles up to a cap. There are two caps. A server that is away costs nothing to try, and is to be found
soon when it is back; one that is there and does not get round to its callers has too many of them already.
"""

from __future__ import annotations

from msgspec import Struct


class Pauses(Struct, frozen=True, kw_only=True):
    """Seconds: the first bound, and its caps where nobody listens and where somebody does."""

    first_s: float
    away_s: float
    crowded_s: float

    def bound_s(self, tries: int, crowded: int) -> float:
        """The longest pause after so many ``tries`` in a row that brought no link, ``crowded`` of them
        though the server was there."""
        away_s = min(self.away_s, self.first_s * 2.0 ** min(tries, 30))
        return max(away_s, min(self.crowded_s, self.first_s * 2.0 ** min(crowded, 30)))


LOCAL = Pauses(first_s=0.05, away_s=0.5, crowded_s=0.5)
"""One agent and one server, which somebody waits for."""

CLUSTER = Pauses(first_s=0.5, away_s=2.0, crowded_s=8.0)
