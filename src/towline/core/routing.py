"""Which of several pools gets a job that may go to any of them.

First where it fits at all, then where most of it could start now, then where the least work is. Pools that
are near each other count as equal, and then a lot decides which is the same at every server: so neither
what is a moment old, nor the order in which pools are asked, sends everything to one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from msgspec import Struct

NEAR = 0.05
"""What differs by no more counts as equal: rooms, and backlogs."""
UNSERVED = 1e12
"""The backlog that a pool without the job's queue says: no other has as much."""


class Offer(Struct, frozen=True, kw_only=True):
    """What a pool says of a job that may come.

    ``fits``: every task fits on some node of it, were that empty. ``room``: the part, 0 to 1, of the elements
    that need nothing else first which could start now. ``backlog``: what is queued and active, as the
    dominant share of all that the pool has; above 1 where more is queued than it can hold at once.
    """

    pool: str
    fits: bool
    room: float
    backlog: float


def best(offers: Sequence[Offer], lot: str) -> str | None:
    """The pool that gets the job; None only where there are no offers. Where it fits nowhere it waits in the
    pool with the least work, since nodes may come. ``lot``: a text of the job's own, such as its id."""
    found = [offer for offer in offers if offer.fits]
    if found:
        most = max(offer.room for offer in found)
        found = [offer for offer in found if offer.room >= most - NEAR]
    else:
        found = list(offers)
    least = min((offer.backlog for offer in found), default=0.0)
    equal = [offer.pool for offer in found if offer.backlog <= least + NEAR]
    return min(equal, key=lambda pool: (_drawn(lot, pool), pool), default=None)


def _drawn(lot: str, pool: str) -> bytes:
    return blake2b(f"{lot}\0{pool}".encode(), digest_size=8).digest()
