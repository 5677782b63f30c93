"""What a server that does not lead keeps up with: the events of its readers, and what it holds in memory of
tokens, enrolments and secrets, which another server may have changed."""

from __future__ import annotations

import asyncio

import structlog

from towline.coordination.storelease import Leases
from towline.errors import OperatorError
from towline.server.events import PAGE, Feed
from towline.server.peers.held import Held
from towline.store.port import Store

RELOAD_S = 1.0
"""How often it is looked whether something has changed that is held in memory."""


class Following:
    """Of one pool. ``leases`` tell what they have seen in the store. ``held`` is kept up to date beside."""

    def __init__(self, feed: Feed, store: Store, leases: Leases, held: Held | None = None) -> None:
        self._feed = feed
        self._store = store
        self._leases = leases
        self._lease = leases.lease(feed.stream)
        self._held = held
        self._told: int | None = None
        """The number of the last event that readers have heard of; None: this server leads."""
        self._due_s = float("-inf")
        """When what is held is looked at next, by the loop's clock."""
        self._looked = asyncio.Event()
        leases.looked.append(self._looked.set)
        self._log = structlog.get_logger("following")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._looked.wait()
            self._looked.clear()
            # One by one: readers whose events cannot be read keep no token that was taken back.
            for work in (self.tell_events, self._catch_up):
                try:
                    await work()
                except OperatorError as error:
                    self._log.warning("cannot keep up with the leader", reason=str(error))

    async def _catch_up(self) -> None:
        """Read anew what is held, where that is due. Raises OperatorError."""
        now_s = asyncio.get_running_loop().time()
        if self._held is not None and now_s >= self._due_s:
            self._due_s = now_s + RELOAD_S
            await self._held.load()

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
