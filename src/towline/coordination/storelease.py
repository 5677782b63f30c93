"""Leases in the store that several servers share: one ``Leases`` a server has them all.

It beats for its server, looks at the leases, takes those that its server is in line for, renews what it
holds, and hands over where another server has fewer. The rules are core/leadership.py; here is when they
are asked, and what happens where the store fails: nothing is renewed, and what is held ends by the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol

import structlog
from msgspec import structs

from towline.core.leadership import (
    LOOK_MS,
    NOBODY,
    RENEW_MS,
    LeaseRow,
    PoolLease,
    Seen,
    ServerRow,
    holds,
    is_still,
    may_claim,
    renewed,
    seen,
    spread,
)
from towline.errors import TowlineError

FORGET_MS = 600_000
"""A server that has not beaten for so long is not told of any more."""
EARLIER_TIMES = 2
"""So often the row of an earlier life is deleted: a beat that was under way at its death may write it once
more, and only who lives writes it again and again."""
SETTLE_MS = 3_000
"""Between two pools that a server hands over: each time one of them has no leader for a moment."""
SETTLE_MOST_MS = 600_000
"""Where nobody takes what is handed over (a server of before, or one on which the pool has stopped), it is
tried ever more seldom."""
UNWANTED_MS = 60_000
"""A pool that nobody has led for so long, and that this server does not want to, holds up nothing: it has
stopped for an operator."""
TAKING_OVER_MS = 100
"""What loading a pool takes, where it is a small one."""
TURN_S = 15.0
"""A store has limits of its own, within which what was asked for is done or fails; this one is for none."""
ASKED_MS = 50
"""Between two looks, however many ask for one."""
PATIENCE_MS = 250
"""Who asks for a look waits for it no longer."""
GIVE_UP_S = 2.0
"""What a server that stops waits for the store to hear of it."""


class LeaseStore(Protocol):
    """What of a store is needed here."""

    async def lease_read(self) -> list[PoolLease]: ...
    async def lease_take(self, expected: LeaseRow, holder: str, at_ms: int) -> bool: ...
    async def lease_renew(self, holder: str, pools: Sequence[str]) -> list[str]: ...
    async def server_put(self, row: ServerRow) -> None: ...
    async def server_list(self) -> list[ServerRow]: ...
    async def server_delete(self, id: str) -> bool: ...


def _now_ms() -> int:
    """Wall clock: for people only."""
    return time.time_ns() // 1_000_000


def boottime_ms() -> int:
    """CLOCK_BOOTTIME: goes on while the machine sleeps, and nobody can set it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Peer(NamedTuple):
    """A server as this one sees it: for how long it has not beaten, in ms, and whether it counts as alive."""

    row: ServerRow
    silent_ms: int
    live: bool


class StoreLease:
    """A ``Lease`` (see the port) of one pool, which ``Leases`` keeps."""

    def __init__(self, pool: str, leases: Leases) -> None:
        self.pool = pool
        self._leases = leases
        self.until_ms = 0
        self.wanted = False
        """Whether somebody here waits to lead the pool."""
        self._ours = asyncio.Event()
        self._leaving = asyncio.Event()

    @property
    def held(self) -> bool:
        return holds(self.until_ms, self._leases.clock())

    async def acquire(self) -> None:
        self.wanted = True
        try:
            while not self.held:
                self._ours.clear()
                await self._ours.wait()
        finally:
            self.wanted = False
        self._leaving.clear()

    async def leaving(self) -> None:
        await self._leaving.wait()

    async def give_up(self) -> None:
        if self.until_ms:
            self.until_ms = 0
            self._leaving.set()
            await self._leases.release([self.pool])

    def got(self, sent_ms: int, lease_ms: int) -> None:
        """The store has said yes to what was sent then."""
        self.until_ms = renewed(self.until_ms, sent_ms, lease_ms)
        self._ours.set()

    def lost(self) -> None:
        self.until_ms = 0
        self._leaving.set()

    def hand_over(self) -> None:
        self._leaving.set()


class Leases:
    """``run`` works until it is cancelled; ``close`` is the end of the server. Times are CLOCK_BOOTTIME."""

    def __init__(
        self,
        store: LeaseStore,
        server: ServerRow,
        clock: Callable[[], int] = boottime_ms,
    ) -> None:
        self._store = store
        self._server = server
        self.clock = clock
        self._lease_ms = lease_ms = server.lease_ms
        self._renew_ms = min(RENEW_MS, lease_ms // 5)
        self._look_ms = min(LOOK_MS, lease_ms // 20)
        self._own: dict[str, StoreLease] = {}
        self._seen: dict[str, Seen[tuple[str, int]]] = {}
        self._rows: dict[str, PoolLease] = {}
        self._servers: dict[str, Seen[ServerRow]] = {}
        self.beating: set[str] = set()
        """Servers that were seen to beat: others may have died before this one came."""
        self._deleted: Counter[str] = Counter()
        """How often a server's row was deleted as that of an earlier life."""
        self._renewed_ms = -lease_ms
        self._handed_over_ms = -SETTLE_MS
        self._handed_over = ""
        self._settle_ms = SETTLE_MS
        self._closing = False
        self._wanted = asyncio.Event()
        self._asking: list[asyncio.Future[None]] = []
        self._trouble = ""
        self._log = structlog.get_logger("leases").bind(server=server.id)
        self.looked: list[Callable[[], None]] = []
        """Called after each look at the store."""

    @property
    def id(self) -> str:
        return self._server.id

    def lease(self, pool: str) -> StoreLease:
        return self._own.setdefault(pool, StoreLease(pool, self))

    def held(self) -> list[str]:
        """The pools whose leases this server has now."""
        return [pool for pool in sorted(self._own) if self._own[pool].held]

    # --- what is known ------------------------------------------------------------------------------
    def pools(self) -> list[PoolLease]:
        """As they were at the last look."""
        return [self._rows[pool] for pool in sorted(self._rows)]

    def peers(self) -> list[Peer]:
        """All servers, this one among them."""
        now_ms = self.clock()
        return [
            Peer(known.value, now_ms - known.since_ms, self._is_live(known, now_ms))
            for _, known in sorted(self._servers.items())
        ]

    @property
    def alone(self) -> bool:
        """Whether no other server is up, as far as is known."""
        return not any(peer.live for peer in self.peers() if peer.row.id != self.id)

    def leader_of(self, pool: str) -> ServerRow | None:
        """Who leads a pool, as far as is known: this server only while that is certain."""
        if (own := self._own.get(pool)) is not None and own.held:
            return self._server
        row, known = self._rows.get(pool), self._seen.get(pool)
        if row is None or known is None or is_still(known, self.clock(), self._length_ms(known)):
            return None
        holder = row.lease.holder
        return None if holder == self.id or holder not in self._servers else self._servers[holder].value

    def free_in_ms(self, pool: str) -> int:
        """After how long at most a pool that has no leader may have one: for who asks when to come again."""
        known = self._seen.get(pool)
        if known is not None and known.value[0] == self.id:
            return TAKING_OVER_MS
        if known is None or known.value[0] == NOBODY:
            return self._look_ms
        return max(self._look_ms, known.since_ms + self._length_ms(known) - self.clock())

    def _length_ms(self, known: Seen[tuple[str, int]]) -> int:
        """How long the holder of a lease may trust it: servers may be set up differently."""
        holder = self._servers.get(known.value[0])
        return self._lease_ms if holder is None else max(self._lease_ms, holder.value.lease_ms)

    def _is_live(self, known: Seen[ServerRow], now_ms: int) -> bool:
        return not is_still(known, now_ms, self._lease_ms)

    # --- work ---------------------------------------------------------------------------------------
    async def run(self) -> None:
        watching = asyncio.create_task(self._watch())
        try:
            while True:
                asking, self._asking = self._asking, []
                self._wanted.clear()
                await self._turn()
                for one in asking:
                    if not one.done():
                        one.set_result(None)
                await self._rest()
        finally:
            watching.cancel()

    async def _rest(self) -> None:
        """Until the next look is due, or somebody asks for one."""
        least_s, most_s = min(ASKED_MS, self._look_ms) / 1000, self._next_look_ms() / 1000
        await asyncio.sleep(min(least_s, most_s))
        if most_s > least_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(most_s - least_s):
                    await self._wanted.wait()

    async def look(self) -> None:
        """Returns once there was a look, and what follows from it, that began after this call; or, where the
        store is slow, without one. For whoever has reason to think that who leads has changed."""
        one: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asking.append(one)
        self._wanted.set()
        await asyncio.wait([one], timeout=PATIENCE_MS / 1000)

    def _next_look_ms(self) -> int:
        """Sooner where a lease that this server waits for is about to be free."""
        waits = [self._look_ms]
        for pool, known in self._seen.items():
            own = self._own.get(pool)
            if own is not None and own.wanted and known.value[0] not in (NOBODY, self.id):
                left_ms = known.since_ms + self._length_ms(known) - self.clock()
                waits += [left_ms] if left_ms > 0 else []
        return min(waits)

    async def _watch(self) -> None:
        """What is held ends by the clock, also where the store hangs."""
        while True:
            for lease in list(self._own.values()):
                if lease.until_ms and not lease.held:
                    self._log.warning("a lease has run out", pool=lease.pool, trouble=self._trouble)
                    lease.lost()
            await asyncio.sleep(self._look_ms / 1000)

    async def _turn(self) -> None:
        try:
            async with asyncio.timeout(TURN_S):
                await self.turn()
        except (TowlineError, TimeoutError) as error:
            if not self._trouble:
                self._log.warning("leases are not kept", reason=str(error) or "the store does not answer")
            self._trouble = str(error) or "the store does not answer"
        else:
            self._trouble = ""

    async def turn(self) -> None:
        """One look, and what follows from it. Raises StoreError."""
        if self.clock() - self._renewed_ms >= self._renew_ms:
            await self._renew()
            await self._beat()
        await self._look()
        if self._closing:
            return
        plan = spread(self.id, self._live(), self._holders())
        if not self._others_elsewhere():
            for pool, after_ms in plan.claims:
                await self._claim(pool, after_ms)
        if plan.hand_over is not None:
            self._hand_over(plan.hand_over)
        for told in self.looked:
            told()

    async def _renew(self) -> None:
        sent_ms = self.clock()
        held = [lease for lease in self._own.values() if lease.until_ms]
        if held:
            kept = await self._store.lease_renew(self.id, [lease.pool for lease in held])
            for lease in held:
                if lease.pool in kept and lease.until_ms:
                    lease.got(sent_ms, self._lease_ms)
                elif lease.until_ms:
                    self._log.warning("another server has the lease", pool=lease.pool)
                    lease.lost()
        self._renewed_ms = sent_ms

    async def _beat(self) -> None:
        self._server = structs.replace(self._server, beats=self._server.beats + 1)
        await self._store.server_put(self._server)

    async def _look(self) -> None:
        leases = await self._store.lease_read()
        now_ms = self.clock()
        self._rows = {row.pool: row for row in leases}
        self._seen = {row.pool: seen(self._seen.get(row.pool), row.lease.state, now_ms) for row in leases}
        servers = await self._store.server_list()
        now_ms = self.clock()
        self.beating |= {row.id for row in servers if self._has_beaten(row)}
        self._servers = {row.id: seen(self._servers.get(row.id), row, now_ms) for row in servers}
        for id, known in list(self._servers.items()):
            if id != self.id and (self._was_here(known.value) or is_still(known, now_ms, FORGET_MS)):
                await self._store.server_delete(id)
                self._deleted[id] += 1
                del self._servers[id]

    def _was_here(self, row: ServerRow) -> bool:
        """Whether it is an earlier life of a server at this address, which this one has now; or one that
        lives: two servers may be set to one address, and that one's row comes back then."""
        here = (self._server.address, self._server.coordination)
        earlier = (row.address, row.coordination) == here and row.started_at < self._server.started_at
        return earlier and self._deleted[row.id] < EARLIER_TIMES

    def _others_elsewhere(self) -> bool:
        """Whether a server may live that looks for leases elsewhere than this one: what is free here may be
        led by it. Whichever of the two is not to be there ends soon; see server/peers/joined.py."""
        now_ms = self.clock()
        return any(
            known.value.coordination != self._server.coordination
            and not is_still(known, now_ms, max(self._lease_ms, known.value.lease_ms))
            for known in self._servers.values()
        )

    def _has_beaten(self, row: ServerRow) -> bool:
        before = self._servers.get(row.id)
        return before is not None and before.value.beats != row.beats

    def _live(self) -> list[str]:
        now_ms = self.clock()
        return [id for id, known in self._servers.items() if self._is_live(known, now_ms)]

    def _holders(self) -> dict[str, str]:
        """By pool; what may be claimed has none. A pool that this server could lead, but does not want to,
        is left to others, as long as one of them may want to."""
        now_ms = self.clock()
        holders: dict[str, str] = {}
        for pool, known in self._seen.items():
            own, length_ms = self._own.get(pool), self._length_ms(known)
            if own is not None and own.held:
                holders[pool] = self.id
            elif not may_claim(known, self.id, now_ms, length_ms):
                holders[pool] = known.value[0]
            elif (own is not None and own.wanted) or not is_still(known, now_ms, length_ms + UNWANTED_MS):
                holders[pool] = NOBODY
        return holders

    async def _claim(self, pool: str, after_ms: int) -> None:
        lease, known = self._own.get(pool), self._seen[pool]
        free_since_ms = known.since_ms + (
            0 if known.value[0] in (NOBODY, self.id) else self._length_ms(known)
        )
        sent_ms = self.clock()
        if lease is None or not lease.wanted or sent_ms < free_since_ms + after_ms:
            return
        row = self._rows[pool].lease
        if await self._store.lease_take(row, self.id, _now_ms()):
            self._log.info("took the lease", pool=pool, before=row.holder)
            if pool == self._handed_over:
                self._settle_ms = min(2 * self._settle_ms, SETTLE_MOST_MS)
            lease.got(sent_ms, self._lease_ms)

    def _hand_over(self, pool: str) -> None:
        now_ms = self.clock()
        before = self._seen.get(self._handed_over)
        if before is not None and before.value[0] not in (NOBODY, self.id):
            self._settle_ms = SETTLE_MS
        if now_ms - self._handed_over_ms >= self._settle_ms:
            self._handed_over_ms, self._handed_over = now_ms, pool
            self._log.info("handing over, since another server has fewer pools", pool=pool)
            self._own[pool].hand_over()

    # --- the end ------------------------------------------------------------------------------------
    async def release(self, pools: Sequence[str]) -> None:
        """Tell the store that these leases are free; where that fails they end by themselves."""
        with contextlib.suppress(TowlineError, TimeoutError):
            async with asyncio.timeout(GIVE_UP_S):
                left = set(pools)
                while left:
                    left = await self._release(left)

    async def _release(self, pools: Collection[str]) -> set[str]:
        """Free them as they stand now; returns those that have changed meanwhile. Whatever their state, a
        request that comes late could free a lease that this server has taken anew since, and trusts."""
        rows = [row.lease for row in await self._store.lease_read()]
        own = [row for row in rows if row.pool in pools and row.holder == self.id]
        return {row.pool for row in own if not await self._store.lease_take(row, NOBODY, _now_ms())}

    async def close(self) -> None:
        """This server is none any more; ``run`` has ended. Leases that are still held are freed."""
        self._closing = True
        for lease in self._own.values():
            if lease.until_ms:
                lease.lost()
        await self.release(list(self._own))  # also what a claim has got whose answer nobody waited for
        with contextlib.suppress(TowlineError, TimeoutError):
            async with asyncio.timeout(GIVE_UP_S):
                await self._store.server_delete(self.id)
