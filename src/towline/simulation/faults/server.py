"""A simulated server: production's leader, gateway and intake in a process that may die, freeze or be cut
off.

What is simulated is only what they stand on: the clock, the store's network, and the agents' connections.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from towline.coordination.storelease import Leases
from towline.core.commands import Command
from towline.core.leadership import ServerRow
from towline.core.pool import Pool
from towline.errors import RequestError, TowlineError, Unavailable
from towline.server.events import Feed
from towline.server.gateway import Gateway
from towline.server.intake import Intake
from towline.server.leader import Leader
from towline.server.leader.retrying import Retrier
from towline.server.peers.pool import PoolPeers
from towline.server.settings import Settings
from towline.simulation.faults.network import SERVER, Network, Wire
from towline.simulation.faults.process import Clocks, Process
from towline.simulation.faults.storing import Database, StoreClient
from towline.simulation.faults.truth import Truth
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


class WatchedLeader(Leader):
    """Tells ``Truth`` of each heartbeat that is answered."""

    answered: Callable[[int], None]

    def heard(self, node: str) -> int:
        term = super().heard(node)
        if term:
            self.answered(term)
        return term


class Seat:
    """What one server has for one pool."""

    def __init__(self, server: Server, pool: str) -> None:
        self.pool = pool
        self.store = store = server.store
        clocks = server.process.clocks
        settings = Settings(home=Path("/nowhere"), listen="127.0.0.1:1", pool=pool)
        self.lease = server.leases.lease(pool)
        self.gateway = Gateway(Feed(pool, store, 100), settings, peers=PoolPeers(server.leases, pool))
        self.leader = WatchedLeader(store, clocks, settings, NoHand(), self.gateway, lease=self.lease)
        self.leader.answered = lambda term: server.truth.heartbeat_answered(server.name, pool, term)
        self.gateway.attach(self.leader)
        self.intake = Intake(store, self.leader, "default", pool, new_id=server.new_job_id)
        self.retrier = Retrier(store, self.leader, pool, 1e9)

    @property
    def leads(self) -> bool:
        return self.leader.leads

    @property
    def pool_in_memory(self) -> Pool | None:
        return self.leader._pool if self.leader.ready.is_set() else None


class Server:
    """One machine's server, through all its lives."""

    def __init__(
        self, world: World, network: Network, database: Database, truth: Truth, name: str, pools: list[str]
    ) -> None:
        self.world = world
        self.network = network
        self.truth = truth
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
        row = ServerRow(id=self.id, name=self.name, address=self.name, build="simulated", started_at=0)
        self.leases = Leases(self.store, row, self._clocks.boot_ms)
        self.seats = {pool: Seat(self, pool) for pool in self._pools}
        self.world.tell(self.name, f"starts as {self.id}")
        self.process.start(self._main())

    async def _main(self) -> None:
        self.running = asyncio.create_task(self.leases.run())
        for seat in self.seats.values():
            seat.leading = asyncio.create_task(seat.leader.run())

    @property
    def leads(self) -> bool:
        """Anything."""
        return self.process.alive and any(seat.leads for seat in self.seats.values())

    def stop(self) -> None:
        """As by SIGTERM."""
        self.world.tell(self.name, "is stopped")
        self.process.start(self._stop())

    async def _stop(self) -> None:
        """What has arrived is committed first, while the leases are still renewed."""
        for seat in self.seats.values():
            seat.leader.end()
        await asyncio.gather(*(seat.leading for seat in self.seats.values()))
        self.running.cancel()
        await self.leases.close()
        self.world.after(0, self.process.crash)

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
        except ConnectionError:
            pass  # it has gone before it was refused
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
