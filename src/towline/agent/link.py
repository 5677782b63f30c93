"""The agent's WebSocket to the server: opened again and again, each time with Hello.

What the machine says in one turn of the event loop leaves as one frame. Frames are read and written
in the transport's own callbacks, without a task or a future for each. What may wait (the bytes of
further commands, output that is shipped) goes in small frames, and only while the transport has nothing
else to send.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from socket import AF_UNIX, IPPROTO_TCP, TCP_NOTSENT_LOWAT
from ssl import SSLError
from typing import Any, Protocol

import msgspec
import structlog
from msgspec import Struct
from websockets.exceptions import InvalidHandshake, InvalidMessage

from towline.agent.capacity import Capacity, NodeUsage
from towline.agent.cluster.connection import LinkConnection
from towline.agent.cluster.dialing import Dial, url_of
from towline.agent.cluster.leasing import NodeLease
from towline.agent.cluster.opening import discard, first_of
from towline.agent.cluster.room import Room
from towline.agent.cluster.servers import Servers
from towline.agent.cluster.shipping import Shipper
from towline.agent.fetching.output import read_log
from towline.agent.fetching.serving import ArtifactsServing
from towline.agent.images import NodeImages
from towline.agent.supervision import kernel
from towline.core.agent import events as on
from towline.core.agent.machine import AgentMachine
from towline.core.agent.pauses import LOCAL, Pauses
from towline.core.commands import AttemptUpdate
from towline.core.rows import GpuDevice
from towline.wire import messages as wire
from towline.wire.artifacts import ArtifactsCall
from towline.wire.exec import ExecClose, ExecOpen, ExecSaid, ExecSay
from towline.wire.resending import send_again_soon
from towline.wire.shipping import LogAck
from towline.wire.sockets import NOT_OPENED, OPTIONS
from towline.wire.usage import ReadUsage
from towline.wire.versions import OLDEST, VERSION, agreed, apart, has

HEARTBEAT_S = 2.0
FIRST_BEAT_S = 0.1
"""How often it is asked whether the server has said by now how often it wants to hear one."""
ANOTHER_BEATS = 2
"""Where nothing was heard on a link for so many heartbeats, another one is opened beside it, and takes its
place once it is open; twice as many for the next one, until one is welcomed."""
MOST_BEATS = 16
MOST_MOVES = 4
"""So often in a row an agent goes at once where it is sent: servers may point at each other for a moment."""
SOON_TRIES = 8
"""After so many tries in a row it takes longer than a change of leaders."""
APART_S = 1.0
"""Where there are several servers, the next one is asked when one has not answered for so long."""
OPEN_TIMEOUT_S = 30.0
MAX_FRAME_BYTES = 128 * 1024**2
SHIPPED_AT_ONCE = 4
UNSENT_BYTES = 128 * 1024
"""What the kernel takes of us before it can send it: a report waits behind no more than that."""

_THERE = (InvalidHandshake, InvalidMessage, EOFError, ConnectionResetError, SSLError)
"""How it shows that somebody listens, who then did not take the link."""


class Identity(Struct, frozen=True, kw_only=True):
    """Who this node is. ``id`` never changes; ``runtimes`` as in Hello."""

    id: str
    name: str
    build: str
    boot_id: str
    labels: dict[str, str]
    capacity: Capacity
    runtimes: dict[str, str | None]
    gpus: tuple[GpuDevice, ...] = ()
    taints: tuple[str, ...] = ()
    protects: dict[str, tuple[str, ...]] = {}


class Executor(Protocol):
    """The part of agent.executor.Executor that a link tells what it hears."""

    machine: AgentMachine
    templates: Any

    def tell(self, *events: on.Event) -> None: ...


class Further(Protocol):
    """The node's further commands, as far as a link tells of them; see agent.exec.service.NodeExec."""

    def hear(self, message: ExecOpen | ExecSay | ExecClose, say: Callable[[ExecSaid], None]) -> None: ...

    def link_closed(self) -> None: ...


class Link:
    """``run`` keeps a link open until there is a reason to end, which it returns.

    ``must_end`` is asked before each attempt to connect and with each heartbeat, with how long ago
    in seconds a server was last there; it gives that reason, or None.
    """

    def __init__(
        self,
        dial: Dial,
        identity: Identity,
        output_dir: str,
        executor: Executor,
        must_end: Callable[[float], str | None],
        newer_build: Callable[[str], bool] = lambda _: False,
        images: NodeImages | None = None,
        further: Further | None = None,
        usage: NodeUsage | None = None,
        lease: NodeLease | None = None,
        shipper: Shipper | None = None,
        room: Room | None = None,
        pauses: Pauses = LOCAL,
        welcomed: Callable[[bool], None] = lambda _: None,
        servers: Servers | None = None,
    ) -> None:
        self._servers = servers
        """Of the cluster; None: this machine's own is the only one."""
        self._dial = dial
        self._identity = identity
        self._output_dir = output_dir
        self._artifacts = ArtifactsServing(Path(output_dir).parent / "artifacts")
        self._executor = executor
        self._must_end = must_end
        self._newer_build = newer_build
        self._node_images = images
        self._further = further
        self._usage = usage
        self._lease = lease
        self._room = room
        self._hello_ms = 0
        self._beat_s = HEARTBEAT_S
        self._told_welcome = welcomed
        """Told whether the server takes artifacts, before it is heard any further."""
        self._shipper = shipper
        if shipper is not None:
            shipper.ready = self._flush_soon
        self._connection: LinkConnection | None = None
        self._welcomed = False
        self._version = OLDEST
        self._waiting: list[wire.FromAgent] = []
        self._patient: deque[ExecSaid] = deque()
        self._flushing = False
        self._heard_s = 0.0
        self._ending: asyncio.Future[str] | None = None
        self._retry_s: float | None = None
        self._moves = 0
        self._moved = False
        """A server has said which one is to be asked."""
        self._pauses = pauses
        self._tries = self._crowded = 0
        self._another: asyncio.Task[LinkConnection | None] | None = None
        self._patience_beats = ANOTHER_BEATS
        self._log = structlog.get_logger("agent.link")

    # --- what the executor wants said ---------------------------------------------------------------
    def hello(self, instance: str, known: tuple[AttemptUpdate, ...]) -> None:
        me, room = self._identity, self._identity.capacity
        self._hello_ms = kernel.boottime_ms()
        self.say(
            wire.Hello(
                version=OLDEST,
                newest=VERSION,
                build=me.build,
                node=me.id,
                name=me.name,
                instance=instance,
                boot_id=me.boot_id,
                cpu_milli=room.cpu_milli,
                memory_bytes=room.memory_bytes,
                pids=room.pids,
                labels=me.labels,
                runtimes=me.runtimes if self._room is None else self._room.limit(me.runtimes),
                known=known,
                gpus=me.gpus,
                taints=me.taints,
                protects=me.protects,
                disk_bytes=room.disk_bytes,
                sent_boottime_ms=self._hello_ms,
            )
        )

    def say(self, message: wire.FromAgent) -> None:
        self._waiting.append(message)
        self._flush_soon()

    def say_in_time(self, message: ExecSaid) -> None:
        """In the order of these calls, but after everything that is said otherwise."""
        if self._connection is None:
            return  # whom it was for has gone with the link
        self._patient.append(message)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        waiting, self._waiting = self._waiting, []
        if self._version < VERSION:  # of an older server, or none that we know yet
            waiting = [message for message in waiting if has(self._version, type(message))]
        if waiting and self._connection is not None:
            self._connection.say(wire.encode(waiting))
        self._flush_patient()

    def _flush_patient(self) -> None:
        connection = self._connection
        while self._patient and connection is not None and not connection.congested:
            connection.say(wire.encode([self._patient.popleft()]))
        if self._shipper is not None and connection is not None and self._welcomed:
            self._ship(connection, self._shipper)

    def _ship(self, connection: LinkConnection, shipper: Shipper) -> None:
        """A few at once: what was said meanwhile goes before the next ones."""
        for _ in range(SHIPPED_AT_ONCE):
            message = None if connection.congested else shipper.next()
            if message is None:
                return
            connection.say(wire.encode([message]))
        self._flush_soon()

    def drop(self, why: str) -> None:
        """Close the link now; ``run`` opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._log.warning("closing the link", reason=why)
            connection.transport.abort()

    # --- opening and closing ------------------------------------------------------------------------
    async def run(self, journal_read: asyncio.Event) -> str:
        """Nothing is opened before the supervisor's journal has been read, since Hello tells of it."""
        self._ending = asyncio.get_running_loop().create_future()
        await journal_read.wait()
        try:
            return await self._keep_open()
        finally:
            self._stop_opening()

    async def _keep_open(self) -> str:
        served_s = time.monotonic()
        while True:
            if reason := self._must_end(time.monotonic() - served_s):
                return reason
            connection = await self._open()
            if connection is not None:
                if reason := await self._serve(connection):
                    return reason
                if self._welcomed:
                    served_s = time.monotonic()
                    self._tries = self._crowded = 0
            await self._pause(opened=connection is not None)

    async def _pause(self, *, opened: bool) -> None:
        """Before the next try; none where a server has said which one to ask, or there is another one."""
        more = not opened and self._servers is not None and self._servers.has_more
        moved, self._moved = self._moved and self._moves < MOST_MOVES, False
        self._moves = self._moves + 1 if moved else 0
        bound_s = self._pauses.bound_s(self._tries, self._crowded)
        if self._retry_s is not None and self._tries < SOON_TRIES:  # it was told when, as others were
            bound_s = self._pauses.first_s / 2
        wait_s = random.uniform(0, bound_s) + (self._retry_s or 0)
        if not moved and not more:
            await asyncio.sleep(wait_s)
        self._tries += 1
        self._retry_s = None

    async def _open(self) -> LinkConnection | None:
        """The one that is being opened in place of the last one, if there is one."""
        opening = self._another or self._open_another()
        found = await opening
        self._another = None
        return found

    def _open_another(self) -> asyncio.Task[LinkConnection | None]:
        apart_s = ANOTHER_BEATS * self._beat_s
        if self._servers is not None and self._servers.several:
            apart_s = min(apart_s, APART_S)
        opening = first_of(self._open_one, apart_s=apart_s)
        self._another = asyncio.get_running_loop().create_task(opening)
        self._another.add_done_callback(self._opened)
        return self._another

    def _opened(self, another: asyncio.Task[LinkConnection | None]) -> None:
        """It takes the place of the silent link, if that is still one."""
        if another is not self._another:
            discard(another)
        elif self._connection is not None and another.exception() is None and another.result() is None:
            self._another = None
        elif self._connection is not None:
            self._patience_beats = min(MOST_BEATS, 2 * self._patience_beats)
            self.drop("another one has opened while nothing was heard on this one")

    def _stop_opening(self) -> None:
        another, self._another = self._another, None
        if another is not None:
            another.cancel()

    async def _open_one(self) -> LinkConnection | None:
        try:
            connection = await self._dial(
                create_connection=LinkConnection,
                ping_interval=None,
                open_timeout=OPEN_TIMEOUT_S,
                max_size=MAX_FRAME_BYTES,
                **OPTIONS,
            )
        except NOT_OPENED as error:
            if self._tries == 0:
                self._log.info("no link to a server", reason=str(error) or type(error).__name__)
            self._crowded += isinstance(error, _THERE)
            return None
        assert isinstance(connection, LinkConnection)
        socket = connection.transport.get_extra_info("socket")
        if socket is not None and socket.family != AF_UNIX:
            socket.setsockopt(IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            send_again_soon(socket)
        return connection

    async def _serve(self, connection: LinkConnection) -> str | None:
        """One link, from its Hello to its close. Returns the reason to end the agent, if there is one."""
        assert self._ending is not None
        self._connection = connection
        self._waiting.clear()
        self._patient.clear()
        self._welcomed, self._version = False, OLDEST
        self._heard_s = time.monotonic()
        connection.heard = self._frame
        connection.drained = self._flush_patient
        self._executor.tell(on.LinkOpened())
        closed = asyncio.ensure_future(connection.wait_closed())
        beat = asyncio.get_running_loop().create_task(self._beat())
        try:
            await asyncio.wait([closed, self._ending], return_when=asyncio.FIRST_COMPLETED)
        finally:
            beat.cancel()
            self._flush()
            self._connection = None
            if self._further is not None:
                self._further.link_closed()
            if self._shipper is not None:
                self._shipper.link_closed()
            connection.transport.close()
            await closed
            self._executor.tell(on.LinkClosed())
        return self._ending.result() if self._ending.done() else None

    def _end(self, reason: str) -> None:
        if self._ending is not None and not self._ending.done():
            self._ending.set_result(reason)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._beat_s if self._welcomed else FIRST_BEAT_S)
            silence_s = time.monotonic() - self._heard_s
            if reason := self._must_end(0.0):
                self._end(reason)
            elif silence_s > OPEN_TIMEOUT_S:
                self.drop(f"nothing was heard on it for {silence_s:.0f} s")
            else:
                self._look_at_silence(silence_s)
            if self._welcomed and self._room is not None and self._room.look():
                self.drop(f"to say that {self._room.problem or 'the disk has room again'}")
            elif self._welcomed:
                self.say(
                    wire.Heartbeat(
                        sent_boottime_ms=kernel.boottime_ms(),
                        lease_term=0 if self._lease is None else self._lease.term,
                    )
                )
                self._executor.tell(on.Tick())

    def _look_at_silence(self, silence_s: float) -> None:
        if silence_s <= self._patience_beats * self._beat_s:
            self._stop_opening()
        elif self._another is None:
            if self._servers is not None:
                self._servers.silent()
            self._open_another()

    # --- what the server says -----------------------------------------------------------------------
    def _frame(self, frame: bytes) -> None:
        self._heard_s = time.monotonic()
        if self._connection is None:
            return  # it came after the link was dropped
        try:
            messages = wire.decode_from_server(frame)
        except msgspec.DecodeError as error:
            self.drop(f"the server sent what is no message: {error}")
            return
        for message in messages:
            if self._connection is not None:
                self._hear(message)

    def _hear(self, message: wire.FromServer) -> None:
        executor = self._executor
        match message:
            case wire.Start():
                executor.tell(
                    on.Start(message.term, message.job, message.task, message.elements, message.devices)
                )
            case wire.Ack():
                executor.tell(on.Acked(message.term, message.seq, message.forget))
            case wire.TaskInfo():
                executor.templates.add(message)
            case wire.Pin():
                executor.templates.pin(message.job, message.task, message.image_digest)
            case wire.ImageCall():
                if self._node_images is not None:
                    self._node_images.answer(message, self.say)
            case ReadUsage():
                if self._usage is not None:
                    self._usage.answer(message, self.say)
            case ExecOpen() | ExecSay() | ExecClose():
                if self._further is not None:
                    self._further.hear(message, self.say_in_time)
            case wire.Stop():
                executor.tell(on.Stop(message.term, message.attempt, message.reason, message.grace_ms))
            case wire.HeartbeatAnswer():
                if message.term < executor.machine.term:
                    self.drop(f"it leads to a leader of the older term {message.term}")
                elif self._lease is not None:
                    self._lease.answered(message.term, message.sent_boottime_ms)
            case wire.Maintenance():
                if self._lease is not None:
                    self._lease.maintained(message.term, message.lease_ms)
            case wire.ReadLog():
                self.say(read_log(message, self._output_dir, executor.machine.is_live(message.attempt)))
            case LogAck():
                if self._shipper is not None:
                    self._shipper.acked(message)
                    self._flush_soon()
            case ArtifactsCall():
                self._artifacts.answer(message, self.say)
            case wire.Welcome():
                self._welcome(message)
            case wire.Refused():
                self._refused(message)
            case wire.Goodbye():
                self._log.info("the server ends", attempts=executor.machine.attempt_count)
                if executor.machine.attempt_count == 0:
                    self._end("the server has ended, and nothing is left to do on this node")

    def _welcome(self, message: wire.Welcome) -> None:
        if self._newer_build(message.build):
            self._end("this machine has another build of the program now, which the server runs already")
            return
        version = agreed(message.version, message.version)
        if version is None:
            self._end(apart("the server", message.version, message.version, "this agent"))
            return
        if message.term < self._executor.machine.term:
            self.drop(f"it leads to a leader of the older term {message.term}")
            return
        self._welcomed, self._version = True, version
        if self._servers is not None and self._connection is not None:
            self._servers.welcomed(url_of(self._connection), message.servers)
        self._patience_beats = ANOTHER_BEATS
        self._beat_s = message.heartbeat_ms / 1000
        if self._lease is not None and message.term >= self._executor.machine.term:
            self._lease.welcomed(message.lease, message.term, self._hello_ms)
        self._log.info("linked", term=message.term, server=message.build)
        self._told_welcome(message.takes_artifacts)
        self._executor.tell(on.Welcomed(message.term))
        if self._shipper is not None:
            self._shipper.link_opened(message.log_window_bytes)

    def _refused(self, message: wire.Refused) -> None:
        if message.retry_ms is None:
            self._end(f"the server refuses this agent: {message.message}")
            return
        self._retry_s = message.retry_ms / 1000
        if self._servers is not None:
            self._servers.heard_of(message.servers)
            newer = message.term >= self._executor.machine.term
            self._moved = bool(message.leader) and newer and self._servers.moved(message.leader)
        self.drop(f"refused for now: {message.message}")
