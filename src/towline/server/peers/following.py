"""What a server that does not lead keeps up with: the events of its readers, and what it holds in memory of
tokens, enrolments and secrets, which another server may have changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from towline.coordination.storelease import Leases
from towline.errors import OperatorError
from towline.server.events import PAGE, Feed
from towline.store.port import Store

RELOAD_S = 1.0
"""How often it is looked whether something has changed that is held in memory."""

Reload = Callable[[], Awaitable[None]]


class Following:
    """Of one pool. ``leases`` tell what they have seen in the store; ``reloads`` read anew what is held."""

    def __init__(self, feed: Feed, store: Store, leases: Leases, reloads: Sequence[Reload]) -> None:
        self._feed = feed
        self._store = store
        self._leases = leases
        self._lease = leases.lease(feed.stream)
        self._reloads = reloads
        self._told: int | None = None
        """The number of the last event that readers have heard of; None: this server leads."""
        self._state: tuple[int, ...] | None = None
        self._looked = asyncio.Event()
        leases.looked.append(self._looked.set)
        self._log = structlog.get_logger("following")

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        due_s = 0.0
        while True:
            await self._looked.wait()
            self._looked.clear()
            try:
                await self.tell_events()
                if loop.time() >= due_s:
                    due_s = loop.time() + RELOAD_S
                    await self.reload()
            except OperatorError as error:
                self._log.warning("cannot keep up with the leader", reason=str(error))

    async def reload(self) -> None:
        """Raises OperatorError."""
        if not self._reloads:
            return  # of one pool's alone: to look costs the more, the more nodes there are
        state = await self._store.shared_state()
        if state != self._state:
            for read in self._reloads:
                await read()
            self._state = state

    async def tell_events(self) -> None:
        """Read what the leader has committed since the last look, where somebody waits for it. Raises
        StoreError."""
        newest = {row.pool: row.event_no for row in self._leases.pools()}.get(self._feed.stream)
        if newest is None or self._lease.held:
            self._told = None
            return
        if self._told is None or not self._feed.has_readers:
            self._feed.restart(newest)
            self._told = newest
        while self._told < newest:
            rows = await self._store.events(self._feed.stream, self._told, PAGE)
            if self._lease.held:
                self._told = None  # the leader in this process tells of everything from here on
                return
            if not rows:
                self._feed.restart(newest)
                self._told = newest
                return
            self._feed.publish(rows)
            self._told = rows[-1].number
