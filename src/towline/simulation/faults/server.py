"""A simulated server: production's leader, gateway and intake in a process that may die, freeze or be cut off.

What is simulated is only what they stand on: the clock, the store's network, and the agents' connections.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from towline.core import leadership
from towline.core.commands import Command
from towline.errors import RequestError, StoreError, TowlineError, Unavailable
from towline.server.events import Feed
from towline.server.gateway import Gateway
from towline.server.intake import Intake
from towline.server.leader import Leader
from towline.server.leader.retrying import Retrier
from towline.server.settings import Settings
from towline.simulation.faults.network import SERVER, Network, Wire
from towline.simulation.faults.process import Clocks, Process
from towline.simulation.faults.storing import Database, StoreClient
from towline.simulation.faults.world import World

HANDSHAKE = b"\x90"
"""A frame of no messages: the wire is open."""


class NoHand:
    """An ``InHand`` (see server/leader/poison.py) of a server that never dies over a command."""

    after_death = False

    def is_poison(self, _: str) -> bool:
        return False

    def hold(self, _: str) -> None: ...

    def drop(self) -> None: ...

    def went_well(self, _: str) -> None: ...

    def reset(self) -> None: ...


class Socket:
    """The server's end of a wire, as the gateway uses it: frames come out of it, and go in by ``send``."""

    def __init__(self, process: Process, wire: Wire) -> None:
        self._process = process
        self._wire = wire
        self._frames: deque[bytes | None] = deque()
        self._waiting: asyncio.Future[None] | None = None
        wire.heard[SERVER] = self._heard
        wire.closed[SERVER] = lambda: self._heard(None)

    def _heard(self, frame: bytes | None) -> None:
        self._frames.append(frame)
        if self._waiting is not None and not self._waiting.done() and self._process.alive:
            self._waiting.set_result(None)

    def __aiter__(self) -> Socket:
        return self

    async def __anext__(self) -> bytes:
        while not self._frames:
            self._waiting = self._process.loop.create_future()
            await self._waiting
        frame = self._frames.popleft()
        if frame is None:
            self._frames.append(None)
            raise StopAsyncIteration
        return frame

    async def send(self, frame: bytes) -> None:
        """Raises ConnectionError where it is closed."""
        if not self._wire.is_open(SERVER):
            raise ConnectionResetError
        if self._process.alive:
            self._wire.send(SERVER, frame)

    async def close(self) -> None:
        if self._process.alive:
            self._wire.close(SERVER)
        self._heard(None)


class LeasedLeader(Leader):
    """Leads, and answers heartbeats, only while the pool's lease holds."""

    holds: Callable[[], bool] = lambda: False  # noqa: E731

    def heard(self, node: str) -> int:
        return super().heard(node) if self.holds() else 0


class Seat:
    """What one server has for one pool: it contends for the lease, and leads while it has that."""

    def __init__(self, server: Server, pool: str) -> None:
        self._server = server
        self.pool = pool
        self.until_ms = 0
        settings = Settings(home=Path("/nowhere"), listen="127.0.0.1:1", pool=pool)
        feed = Feed(pool, server.store, 100)
        self.gateway = Gateway(feed, settings)
        self.leader = LeasedLeader(server.store, server.process.clocks, settings, NoHand(), self.gateway)
        self.leader.holds = lambda: leadership.holds(self.until_ms, server.process.clocks.boot_ms())
        self.gateway.attach(self.leader)
        self.intake = Intake(server.store, self.leader, "default", pool, new_id=server.new_job_id)
        self.retrier = Retrier(server.store, self.leader, pool, 1e9)

    async def contend(self) -> None:
        clocks, store, me = self._server.process.clocks, self._server.store, self._server.id
        seen: leadership.Seen[tuple[str, int]] | None = None
        while not self._server.ending:
            try:
                rows = await store.lease_read()
                row = next(row.lease for row in rows if row.pool == self.pool)
                seen = leadership.seen(seen, row.state, clocks.boot_ms())
                if leadership.may_claim(seen, me, sent_ms := clocks.boot_ms()):
                    if await store.lease_take(row, me, clocks.now_ms()):
                        self.until_ms = leadership.renewed(0, sent_ms)
                        await self._lead()
                    seen = None
            except StoreError:
                pass
            await asyncio.sleep(leadership.LOOK_MS / 1000)

    async def _lead(self) -> None:
        leading = asyncio.create_task(self.leader.run())
        renewing = asyncio.create_task(self._renew())
        await asyncio.wait([leading, renewing], return_when=asyncio.FIRST_COMPLETED)
        for task in (leading, renewing):
            task.cancel()
        await asyncio.gather(leading, renewing, return_exceptions=True)
        self.until_ms = 0

    async def _renew(self) -> None:
        clocks, store, me = self._server.process.clocks, self._server.store, self._server.id
        while (left_ms := self.until_ms - clocks.boot_ms()) > 0:
            sent_ms = clocks.boot_ms()
            try:
                async with asyncio.timeout(left_ms / 1000):
                    if self.pool not in await store.lease_renew(me, [self.pool]):
                        return
                self.until_ms = leadership.renewed(self.until_ms, sent_ms)
            except (StoreError, TimeoutError):
                pass
            await asyncio.sleep(leadership.RENEW_MS / 1000)


class Server:
    """One machine's server, through all its lives."""

    def __init__(
        self, world: World, network: Network, database: Database, name: str, pools: list[str]
    ) -> None:
        self.world = world
        self.network = network
        self.name = name
        self._database = database
        self._pools = pools
        self._clocks = Clocks(world)
        self._lives = 0
        self._jobs = 0
        self.start()

    def start(self) -> None:
        self._lives += 1
        self.id = f"{self.name}.{self._lives}"
        self.process = Process(self.world, self.name, self._clocks)
        self.process.died = self._died
        self.store: Any = StoreClient(self.process, self._database)
        self.ending = False
        self.seats = {pool: Seat(self, pool) for pool in self._pools}
        self.world.tell(self.name, f"starts as {self.id}")
        self.process.start(self._main())

    async def _main(self) -> None:
        await asyncio.gather(*(seat.contend() for seat in self.seats.values()))

    def new_job_id(self) -> str:
        self._jobs += 1
        return f"{self.name}j{self._jobs}"

    def _died(self) -> None:
        for wire in self.network.wires_of(self.name):
            wire.close(SERVER)

    # --- whoever connects -----------------------------------------------------------------------------
    def accept(self, wire: Wire, pool: str) -> None:
        """A wire of a node arrives; where nobody is there it is refused."""
        if not self.process.alive:
            wire.close(SERVER)
            return
        socket = Socket(self.process, wire)
        self.process.loop.call_soon(self._accepted, socket, wire, pool)

    def _accepted(self, socket: Socket, wire: Wire, pool: str) -> None:
        wire.send(SERVER, HANDSHAKE)
        self.process.loop.create_task(self._serve(socket, pool))

    async def _serve(self, socket: Socket, pool: str) -> None:
        try:
            await self.seats[pool].gateway.serve(socket, socket)
        finally:
            await socket.close()

    def hear(self, client: str, pool: str, request: Request, answered: Callable[[object], None]) -> None:
        """A client's request arrives."""
        process = self.process
        if not process.alive:
            refusal = Unavailable("the connection was refused")
            self.network.post(self.name, client, "refused", answered, refusal)
            return

        async def serve() -> None:
            try:
                answer: object = await request(self.seats[pool])
            except TowlineError as error:
                answer = error
            if process.alive:
                self.network.post(self.name, client, f"{type(answer).__name__}", answered, answer)

        process.start(serve())


Request = Callable[[Seat], Any]
"""Makes the coroutine that serves it."""


def asking(command: Command) -> Request:
    """A request that is one command of the leader's."""
    return lambda seat: seat.leader.ask(command)


def is_final(answer: object) -> bool:
    """Whether the same request need not be sent again."""
    return not isinstance(answer, Exception) or isinstance(answer, RequestError)
