"""One server among several on a store: what it has beyond one that has its store to itself."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog
from litestar.types import ASGIApp

from towline.build import build
from towline.coordination.storelease import Leases, StoreLease
from towline.coordination.zookeeper import Ensemble, ZooKeeperLeases
from towline.core.leadership import ServerRow
from towline.errors import WrongSetting
from towline.identity.joining import bracketed
from towline.model.units import rfc3339
from towline.model.views import LedPoolView, PeerView
from towline.server.events import Feed
from towline.server.peers.carrying import Carrying
from towline.server.peers.following import Following
from towline.server.peers.held import Held, Load
from towline.server.peers.passing import passing
from towline.server.peers.pool import PoolPeers
from towline.server.settings import Settings, host_and_port
from towline.store.port import Store

if TYPE_CHECKING:
    from towline.logs.archive import Archive
    from towline.server.access.authority import Authority

ID_BYTES = 8
CHECK_S = 0.5
CATCH_UP_S = 20.0


class Joined:
    """Made once the store is open. ``run`` works until it is cancelled; then ``close``."""

    def __init__(self, settings: Settings, store: Store, authority: Authority) -> None:
        host, port = settings.reached_at()
        ensemble = Ensemble(settings.coordination_url) if settings.coordination_url else None
        row = ServerRow(
            id=secrets.token_hex(ID_BYTES),
            name=socket.gethostname(),
            address=f"{bracketed(host)}:{port}",
            build=build(),
            started_at=time.time_ns() // 1_000_000,
            lease_ms=settings.leadership_ms,
            files=settings.own_files,
            coordination="" if ensemble is None else str(ensemble),
            pool=settings.pool,
        )
        self.row = row
        self._pool = settings.pool
        self._store = store
        self._zookeeper = None if ensemble is None else ZooKeeperLeases(ensemble, store)
        self.leases = Leases(self._zookeeper or store, row)
        self._carrying = Carrying(authority, row.id)
        self._archive: Archive | None = None
        self._told: set[str] = set()

    def lease(self, pool: str) -> StoreLease:
        return self.leases.lease(pool)

    def of(self, pool: str) -> PoolPeers:
        """What is known of a pool."""
        return PoolPeers(self.leases, pool, self.row.address)

    @property
    def alone(self) -> bool:
        """Whether no other server is up, as far as is known."""
        return self.leases.alone

    async def open(self) -> None:
        """The pool has to be there before anybody can lead it. Raises StoreError, and OperatorError for a
        ZooKeeper that cannot be used."""
        await self._store.pool_create(self._pool)
        if self._zookeeper is not None:
            await self._zookeeper.open()

    def hold(self, reloads: Sequence[Load]) -> Held:
        """What this server holds of what others change, and reads with these."""
        return Held(self._store, reloads)

    def follow(self, feed: Feed, held: Held | None = None) -> Following:
        """What keeps a pool's readers up with its leader; and this server with what is ``held``."""
        return Following(feed, self._store, self.leases, held)

    def read_output(self, archive: Archive) -> None:
        """What other servers have kept of nodes' output is to be found here too."""
        self._archive = archive

    async def _keep_caught_up(self, archive: Archive) -> None:
        """Now and then, and at once when this server begins to lead a pool: it is asked for output then."""
        log = structlog.get_logger("logs")
        led, due_s = set[str](), 0.0
        while True:
            leads, now_s = set(self.leases.held()), time.monotonic()
            if now_s >= due_s or leads - led:
                try:
                    await asyncio.to_thread(archive.catch_up)
                except OSError as error:
                    log.warning("output of other servers is not found", reason=str(error))
                due_s = now_s + CATCH_UP_S
            led = leads
            await asyncio.sleep(CHECK_S)

    def door(self, app: ASGIApp, leads: Callable[[str], bool]) -> ASGIApp:
        """``app``, in front of which what is a leader's goes to it."""
        return passing(app, self._pool, self.leases, leads, self._carrying, self.row.name)

    async def run(self) -> None:
        """Raises WrongSetting where this server does not go with another one."""
        tasks = [asyncio.ensure_future(self.leases.run()), asyncio.ensure_future(self._keep_checking())]
        if self._archive is not None:
            tasks.append(asyncio.ensure_future(self._keep_caught_up(self._archive)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            # None of them takes a lease after this server has let go of its own.
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_checking(self) -> None:
        while True:
            self._check_others()
            await asyncio.sleep(CHECK_S)

    def _check_others(self) -> None:
        """Of two servers that do not go together the younger one ends."""
        for peer in self.leases.peers():
            other = peer.row
            if other.id == self.row.id or not peer.live or other.id not in self.leases.beating:
                continue
            if (self.row.started_at, self.row.id) < (other.started_at, other.id):
                self._tell_of_address(other)
                continue
            if other.address == self.row.address:
                raise WrongSetting(
                    f"this server is reached at {self.row.address}, and so is the server {other.name} that "
                    "runs already: set address to another HOST:PORT on one of them, where others reach that "
                    "one alone"
                )
            if other.coordination != self.row.coordination:
                raise WrongSetting(
                    f"this server looks for leases in {self.row.coordination or 'the store'}, and "
                    f"{other.name} at {other.address} in {other.coordination or 'the store'}: set "
                    "coordination_url to the same on both"
                )
            if other.pool not in ("", self.row.pool):
                raise WrongSetting(
                    f"this server's pool is {self.row.pool}, and that of {other.name} at {other.address} is "
                    f"{other.pool}: set pool to the same on both; further pools are made by `tow pool create`"
                )
            if own := self.row.files or other.files:
                whose = "this server" if self.row.files else f"the server {other.name} at {other.address}"
                raise WrongSetting(
                    f"{whose} keeps output and artifacts in {own}, which other servers do not reach, and "
                    f"this server shares its store with {other.name} at {other.address}: set object_store to "
                    "one that both reach, or shared_files = true on both where they have that folder together"
                )

    def _tell_of_address(self, younger: ServerRow) -> None:
        """Once: it ends, as it hears of the same."""
        if younger.address == self.row.address and younger.id not in self._told:
            self._told.add(younger.id)
            structlog.get_logger("server").warning(
                "another server is set to this one's address: set address to another one there",
                address=younger.address,
                server=younger.name,
            )

    async def close(self) -> None:
        """Once ``run`` has ended."""
        await self.leases.close()
        if self._zookeeper is not None:
            await self._zookeeper.close()
        with contextlib.suppress(OSError):
            await self._carrying.close()

    # --- what others are told -----------------------------------------------------------------------
    def other_places(self) -> tuple[tuple[str, int], ...]:
        """(host, port) of the other servers that are up."""
        rows = [peer.row for peer in self.leases.peers() if peer.live and peer.row.id != self.row.id]
        return tuple(host_and_port(row.address, "address") for row in rows)

    def views(self) -> list[PeerView]:
        pools = self.leases.pools()
        leaders = {row.pool: self.leases.leader_of(row.pool) for row in pools}
        return [
            PeerView(
                id=peer.row.id,
                name=peer.row.name,
                address=peer.row.address,
                build=peer.row.build,
                started_at=rfc3339(peer.row.started_at),
                live=peer.live,
                silent_seconds=peer.silent_ms / 1000,
                asked=peer.row.id == self.row.id,
                leads=[
                    LedPoolView(pool=row.pool, term=row.term, since=rfc3339(row.lease.taken_at))
                    for row in pools
                    if (leader := leaders[row.pool]) is not None and leader.id == peer.row.id
                ],
            )
            for peer in self.leases.peers()
        ]
