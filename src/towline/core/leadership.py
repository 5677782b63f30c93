"""The leadership lease: when a server may lead a pool, for how long it may trust that, and who leads what.

A pool's lease is a row that every server can read. Its ``renewals`` rise with every change, so that no two
states of it are alike, and a claim is a compare-and-set on (holder, renewals). No clock but one's own is
trusted, and all times here are CLOCK_BOOTTIME in ms:

- A contender counts from AFTER it first read a row that has not changed since; the holder counts from BEFORE
  it sent the renewal that was answered. The holder's renewal is in the row before any contender can read it,
  so whatever the network does, the holder's trust has ended before anybody may claim.
- A renewal that failed, or was not answered, may have been made or not: it leaves the trust as it was.

The lease makes nobody a leader. Whoever has it raises the term in the pool's own row first, and every commit
is fenced by that term: a lease that was lost unnoticed costs work, never truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Generic, NamedTuple, TypeVar

from msgspec import Struct

LEASE_MS = 5_000
"""So long after its last renewal nobody else may lead."""
RENEW_MS = 1_000
"""A holder asks so often."""
LOOK_MS = 250
"""A contender looks so often."""
STAGGER_MS = 500
"""A server that is not the first in line for a pool lets each one before it have so long."""
NOBODY = ""

T = TypeVar("T")


class LeaseRow(NamedTuple):
    """One pool's lease as the store has it; of a pool that nobody ever led, as it is made here.

    ``holder`` is the random id of one life of a server. ``taken_at`` (unix ms) is when it began to hold it,
    by its own clock, and is for people only."""

    pool: str
    holder: str = NOBODY
    renewals: int = 0
    taken_at: int = 0

    @property
    def state(self) -> tuple[str, int]:
        """What a claim compares."""
        return self.holder, self.renewals


class ServerRow(Struct, frozen=True, kw_only=True):
    """One life of a server. ``id`` is random and made anew by every process; ``beats`` rises while it lives,
    and is the only sign of that. ``started_at`` is unix ms by its own clock."""

    id: str
    name: str
    address: str
    """``HOST:PORT`` where other servers, nodes and clients reach it."""
    build: str
    started_at: int
    beats: int = 0
    lease_ms: int = LEASE_MS
    """How long it trusts a lease: nobody else claims one of its own before."""
    files: str = ""
    """The folder of its own that output and artifacts are in; empty: all servers reach them."""
    coordination: str = ""
    """Where it looks for leases, without a password; empty: in the store."""
    pool: str = ""
    """Which one stands for it where a request names none; empty: it does not tell (an older one)."""


class PoolLease(NamedTuple):
    """A pool with its term, the number of its latest event, and its lease."""

    term: int
    event_no: int
    lease: LeaseRow

    @property
    def pool(self) -> str:
        return self.lease.pool


class Seen(NamedTuple, Generic[T]):
    """What was read, and since when it is known to have been the same: from after its first read on."""

    value: T
    since_ms: int


def seen(before: Seen[T] | None, value: T, now_ms: int) -> Seen[T]:
    """After a read; ``now_ms`` is taken once the answer is there."""
    return before if before is not None and before.value == value else Seen(value, now_ms)


def is_still(what: Seen[T], now_ms: int, lease_ms: int = LEASE_MS) -> bool:
    """Whether it has not changed for a lease's length: whoever should have changed it has lost it."""
    return now_ms - what.since_ms >= lease_ms


def may_claim(what: Seen[tuple[str, int]], me: str, now_ms: int, lease_ms: int = LEASE_MS) -> bool:
    """Whether ``me`` may ask for a lease that was seen in this ``state``; ``now_ms`` is taken before it asks.

    One that names ``me`` already is of a claim whose answer was lost: it may be made sure of at once."""
    return what.value[0] in (NOBODY, me) or is_still(what, now_ms, lease_ms)


def renewed(until_ms: int, sent_ms: int, lease_ms: int = LEASE_MS) -> int:
    """Until when a holder may trust its lease, after the claim or renewal that was sent at ``sent_ms`` was
    answered with yes; ``until_ms`` is what it trusted before (0: nothing)."""
    return max(until_ms, sent_ms + lease_ms)


def holds(until_ms: int, now_ms: int) -> bool:
    return now_ms < until_ms


# --- who leads what ----------------------------------------------------------------------------------
class Plan(NamedTuple):
    """What one server should do. ``claims``: pools that nobody holds, each with the ms that it lets the
    servers before it in line have first. ``hand_over``: a pool of its own to let go of, or none."""

    claims: tuple[tuple[str, int], ...] = ()
    hand_over: str | None = None


def spread(me: str, live: Iterable[str], holders: Mapping[str, str]) -> Plan:
    """Pools over servers, even within one. ``live`` are the servers that beat, ``me`` among them or not;
    ``holders`` has every pool, with NOBODY where it may be claimed.

    A pool that is held stays where it is while the servers are even. One pool at a time changes hands in the
    whole cluster: none is let go of while another one has no holder."""
    servers = sorted({*live, me})
    counts = dict.fromkeys(servers, 0)
    for holder in holders.values():
        if holder in counts:
            counts[holder] += 1
    free = sorted(pool for pool, holder in holders.items() if holder == NOBODY)
    if free:
        return Plan(claims=_claims(me, free, counts))
    most = max(servers, key=lambda server: (counts[server], server))
    if most != me or counts[me] - min(counts.values()) < 2:
        return Plan()
    return Plan(hand_over=max(pool for pool, holder in holders.items() if holder == me))


def _claims(me: str, free: Sequence[str], counts: dict[str, int]) -> tuple[tuple[str, int], ...]:
    """Each pool goes to whoever then has the fewest; all servers work out the same line."""
    claims: list[tuple[str, int]] = []
    for pool in free:
        line = sorted(counts, key=lambda server: (counts[server], _lot(pool, server)))
        claims.append((pool, line.index(me) * STAGGER_MS))
        counts[line[0]] += 1
    return tuple(claims)


def _lot(pool: str, server: str) -> bytes:
    return blake2b(f"{pool}\0{server}".encode(), digest_size=8).digest()


# --- what a term says of attempts -----------------------------------------------------------------
# A store that does not know all that was done with its rows, such as one that was restored from a backup,
# acts only once ``tow db raise-terms`` has raised its terms above every one that was ever used: their upper
# bits are then the time of that in seconds. With it the numbers of attempts rise too, since nobody knows how
# many were made meanwhile, also those of elements that have not started as far as the store knows: see
# docs/decisions/0022-attempts-after-a-restore.md.
LEADERS_BITS = 20
"""The lower bits of a term count leaders: a million of them, before the upper ones rise by one."""
_SINCE_S = 1_735_689_600
"""The first second of 2025: no store is older."""
_ATTEMPTS_A_SECOND = 4
"""More than one element ever makes on average. So numbers stay below 2^31 until 2042."""


def raised(term: int, now_s: int) -> int:
    """The term with which a pool begins that had this one and is led again from now on (unix seconds)."""
    return max((term >> LEADERS_BITS) + 1, now_s) << LEADERS_BITS


def attempts_before(term: int) -> int:
    """The highest number that attempts may have had before the terms were last raised; 0: they never were."""
    return max(0, _ATTEMPTS_A_SECOND * ((term >> LEADERS_BITS) - _SINCE_S))
