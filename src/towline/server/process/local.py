"""A server from start to end: one home, one Unix socket, and the node's agent beside it or a port that
other machines reach.

One of a single machine ends when for a while no job was unfinished and nobody was connected but
agents. To end it takes the start lock, which others hold only while they start a server: whoever
comes in between finds no socket, waits for the lock, and starts the next one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from towline import garbage
from towline.coordination.filelock import FileLease
from towline.errors import OperatorError, StoreError
from towline.server.process.home import SOCKET, START_LOCK
from towline.server.process.http import HttpServer
from towline.server.process.node import AgentProcess, AgentWatch
from towline.server.seats.seats import Seats
from towline.server.settings import Settings
from towline.store.port import Store

if TYPE_CHECKING:
    from towline.server.peers.joined import Joined

GRACE_S = 0.5
"""How long requests may still be answered once the server ends."""
MAINTAIN_S = 5.0
LOAD_PATIENCE_S = 3.0
ACCEPT_ROUNDS = 20
LOOK_EVERY_S = 2.0
MAKE_ROOM_EVERY_S = 60.0
RENEW_EVERY_S = 24 * 3600.0


@dataclass(frozen=True)
class Remote:
    """How other machines reach the server: the application as they see it, on a listening socket."""

    app: Any
    listener: socket.socket
    tls: ssl.SSLContext
    renew: Callable[[], None]
    """Show a new certificate from the next connection on."""


async def _keep_renewed(remote: Remote) -> None:
    """A server's certificate lasts for months; a server may run for longer."""
    while True:
        await asyncio.sleep(RENEW_EVERY_S)
        remote.renew()


class LocalServer:
    """Runs what ``launch`` has put together. ``stop`` may be called at any time."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        seats: Seats,
        joined: Joined | None = None,
    ) -> None:
        self._joined = joined
        """Where other servers share the store."""
        self._settings = settings
        self._store = store
        self._seats = seats
        self._stopping = asyncio.Event()
        self._start_lock: FileLease | None = None
        self._log = structlog.get_logger("server")

    def stop(self) -> None:
        self._stopping.set()

    async def run(
        self,
        app: Any,
        listener: socket.socket,
        agent: AgentProcess | None,
        remote: Remote | None,
    ) -> None:
        """Serve until stopped or, without ``remote``, idle. Raises what made a leader crash."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        path = self._settings.home / SOCKET
        self._socket = path.stat()
        http = HttpServer(app)
        garbage.settle()
        leading = self._seats.start(self.stop)
        joining: asyncio.Task[None] | None = None
        if self._joined is None:
            await self._until_leading(leading)
        else:
            joining = asyncio.create_task(self._joined.run())
            joining.add_done_callback(lambda _: self.stop())
        await http.start(listener)
        door = None if remote is None else await self._open(remote)
        self._log.info("serving", home=str(self._settings.home), listen=self._settings.listen)
        work = [self._seats.work(), self._make_room(), self._stop_when_unreachable()]
        work.append(self._stop_when_idle(http) if remote is None else _keep_renewed(remote))
        beside = [asyncio.create_task(one) for one in work]
        if agent is not None:
            gateway = self._seats.home.gateway
            watch = AgentWatch(agent, gateway.changed)
            beside.append(asyncio.create_task(watch.run(lambda: gateway.open_links)))
        await self._stopping.wait()
        for task in beside:
            task.cancel()
        if door is not None:
            await door.stop_listening()
        await self._end(http, joining, door)
        await asyncio.gather(*beside, return_exceptions=True)

    async def _open(self, remote: Remote) -> HttpServer:
        door = HttpServer(remote.app, self._settings.max_connections)
        await door.start(remote.listener, remote.tls)
        return door

    async def _until_leading(self, leading: asyncio.Task[None]) -> None:
        """Loading is quick: who has connected by now waits for it. Where it is not, they are told so."""
        ready = asyncio.create_task(self._seats.home.leader.ready.wait())
        both = [ready, leading]
        await asyncio.wait(both, timeout=LOAD_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()

    async def _end(
        self,
        http: HttpServer,
        joining: asyncio.Task[None] | None,
        door: HttpServer | None = None,
    ) -> None:
        """No new connections; what has arrived is committed and answered; then everybody is let go."""
        if self.reachable:
            (self._settings.home / SOCKET).unlink(missing_ok=True)
        await http.stop_listening()
        if door is not None and (self._joined is None or self._joined.alone):
            await self._maintain()
        if door is None:  # a cluster's nodes wait for its next server: nobody would start their agents again
            self._seats.home.gateway.end()
        await self._seats.end()
        if joining is not None and self._joined is not None:
            joining.cancel()
            await asyncio.wait([joining])
            await self._joined.close()
        await asyncio.gather(*(one.close(GRACE_S) for one in (http, door) if one is not None))
        await self._seats.settle()
        await self._store.close()
        self._log.info("ended")
        self._seats.close()
        if joining is not None and not joining.cancelled():
            joining.result()

    async def _maintain(self) -> None:
        """What runs under on_disconnect: stop is to outlive a stop of the only server."""
        maintenance_ms = self._settings.maintenance_ms
        seats = list(self._seats)
        try:
            async with asyncio.timeout(MAINTAIN_S):
                found = await asyncio.gather(
                    *(seat.gateway.maintain(maintenance_ms) for seat in seats), return_exceptions=True
                )
        except TimeoutError:
            found = [TimeoutError("the store does not answer")] * len(seats)
        for seat, error in zip(seats, found, strict=True):
            if error is not None:
                self._log.warning("nodes have no longer lease than usual", pool=seat.pool, reason=str(error))

    # --- the end for lack of a home -----------------------------------------------------------------
    @property
    def reachable(self) -> bool:
        """Whether it is our socket that stands in the home: not if somebody has removed the home, in whose
        place there may be another one by now."""
        try:
            return os.path.samestat((self._settings.home / SOCKET).stat(), self._socket)
        except OSError:
            return False

    async def _stop_when_unreachable(self) -> None:
        while self.reachable:  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(LOOK_EVERY_S)
        self._log.warning("ending, since the home is gone", home=str(self._settings.home))
        self.stop()

    # --- the end for lack of work -------------------------------------------------------------------
    async def _stop_when_idle(self, http: HttpServer) -> None:
        idle_s = self._settings.idle_s
        loop = asyncio.get_running_loop()
        busy_at_s = loop.time()
        while True:
            await asyncio.sleep(min(1.0, idle_s / 10))
            if self._busy(http):
                busy_at_s = loop.time()
            elif loop.time() - busy_at_s >= idle_s and await self._ended(http):
                return

    def _busy(self, http: HttpServer) -> bool:
        return http.connections > self._seats.open_links or self._seats.unfinished_jobs != 0

    async def _ended(self, http: HttpServer) -> bool:
        """Take the start lock for the rest of our life, unless somebody came first."""
        lock = FileLease(self._settings.home / START_LOCK)
        try:
            if not lock.try_acquire():
                return False  # somebody is about to connect, or to find us
        except OperatorError as error:  # such as a full disk, which may have space again later
            self._log.warning("cannot end yet", reason=str(error))
            return False
        for _ in range(ACCEPT_ROUNDS):  # whoever has connected by now is accepted and served
            await asyncio.sleep(0)
            if self._busy(http):
                lock.release()
                return False
        self._start_lock = lock  # freed by the kernel when this process has ended
        self._log.info("ending, since nobody needs it", idle_s=self._settings.idle_s)
        self.stop()
        return True

    # --- retention ----------------------------------------------------------------------------------
    async def _make_room(self) -> None:
        """Keep the output that nodes have shipped within its size: that of all pools, by one server."""
        home = self._seats.home
        while True:
            await home.leader.ready.wait()
            try:
                freed = await home.retention.make_room()
                if freed:
                    self._log.info("output was removed to make room", freed_bytes=freed)
            except (StoreError, OSError) as error:
                self._log.warning("no room was made for output", reason=str(error))
            await asyncio.sleep(MAKE_ROOM_EVERY_S)
