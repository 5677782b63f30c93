"""The agent's connection to the node's supervisor, which it starts (with its keeper) where none answers."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Sequence
from typing import Protocol, cast

import msgspec
import structlog

from towline.agent import control
from towline.agent.keeper import start_keeper
from towline.core.agent import events as on
from towline.core.commands import AttemptUpdate
from towline.errors import NodeError

FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 5.0
DESCRIBE_S = 10.0
QUIET_TRIES = 3
"""A supervisor that has died is started again by its keeper; only then the keeper is looked after."""


class Executor(Protocol):
    """The part of agent.executor.Executor that hears the supervisor."""

    def tell(self, *events: on.Event) -> None: ...

    def changed(self, updates: Sequence[AttemptUpdate]) -> None: ...

    def settled(self, updates: Sequence[AttemptUpdate]) -> list[AttemptUpdate]: ...


class _Channel(asyncio.Protocol):
    """Takes frames out of the stream; ``closed`` is done when the connection is."""

    def __init__(self, client: SupervisorClient) -> None:
        self._client = client
        self._incoming = bytearray()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not left to whoever awaits the connection: the snapshot may be read before that one has its turn,
        # and what is said in answer to it must go out.
        self._client.connected(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        incoming = self._incoming
        incoming += data
        at = 0
        while len(incoming) - at >= 4:
            end = at + 4 + int.from_bytes(incoming[at : at + 4], "big")
            if len(incoming) < end:
                break
            self._client.heard(bytes(incoming[at + 4 : end]))
            at = end
        del incoming[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


class SupervisorClient:
    """``journal_read`` is set when the first snapshot has been given to the machine."""

    def __init__(
        self, node_dir: str, executor: Executor, beside: Callable[[], Sequence[AttemptUpdate]] = tuple
    ) -> None:
        """``beside`` gives the attempts of this node that no supervisor has."""
        self._node_dir = node_dir
        self._beside = beside
        self._executor = executor
        self._transport: asyncio.Transport | None = None
        self._waiting: list[control.ToSupervisor] = []
        self._flushing = False
        self._questions: dict[int, asyncio.Future[control.Described]] = {}
        self._question_no = 0
        self.journal_read = asyncio.Event()
        self._log = structlog.get_logger("agent.supervisor")

    def say(self, message: control.ToSupervisor) -> None:
        """What is said in one turn of the event loop goes as one frame."""
        self._waiting.append(message)
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        waiting, self._waiting = self._waiting, []
        if waiting and self._transport is not None:
            self._transport.write(control.encode(waiting))

    async def describe(self, attempt: str) -> control.Described:
        """Whether an attempt runs, and with what plan. Raises NodeError where no supervisor answers."""
        if self._transport is None:
            raise NodeError("the node's supervisor does not answer")
        self._question_no += 1
        request = self._question_no
        answer = self._questions[request] = asyncio.get_running_loop().create_future()
        self.say(control.Describe(request=request, attempt=attempt))
        try:
            async with asyncio.timeout(DESCRIBE_S):
                return await answer
        except TimeoutError:
            raise NodeError("the node's supervisor does not answer") from None
        finally:
            del self._questions[request]

    async def run(self) -> None:
        """Until cancelled. While no supervisor answers, it and its keeper are started."""
        tries, pause_s = QUIET_TRIES, 0.0
        while True:
            channel = await self._connect()
            if channel is not None:
                tries, pause_s = 0, 0.0
                try:
                    await asyncio.shield(channel.closed)
                finally:
                    self._lost()
                self._log.warning("the supervisor has gone")
                continue
            tries += 1
            if tries > QUIET_TRIES and await self._start_keeper():
                tries = 0  # it answers now
                continue
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s or FIRST_PAUSE_S)
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))

    async def _connect(self) -> _Channel | None:
        loop = asyncio.get_running_loop()
        try:
            directory = os.open(self._node_dir, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return None  # the whole home may have been removed
        try:
            # by way of the descriptor: the whole path may be longer than a socket's name may be
            path = f"/proc/self/fd/{directory}/supervisor.sock"
            _, channel = await loop.create_unix_connection(lambda: _Channel(self), path)
        except OSError:
            return None
        finally:
            os.close(directory)
        return channel

    def connected(self, transport: asyncio.Transport) -> None:
        """A supervisor has been found. What was said to the one before it is said again where its
        snapshot asks for that."""
        self._transport = transport
        self._waiting.clear()

    def _lost(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        for answer in self._questions.values():
            if not answer.done():
                answer.set_exception(NodeError("the node's supervisor has ended"))
        self._executor.tell(on.SupervisorDown())

    async def _start_keeper(self) -> bool:
        """Whether a supervisor answers now."""
        try:
            await asyncio.to_thread(start_keeper, self._node_dir)
        except (NodeError, OSError) as error:
            self._log.error("no supervisor", reason=str(error))
            return False
        return True

    def heard(self, body: bytes) -> None:
        """One frame. Anything that is none closes the connection."""
        try:
            messages = control.decode_from_supervisor(body)
        except msgspec.DecodeError as error:
            self._log.error("the supervisor sent what is no message", reason=str(error))
            if self._transport is not None:
                self._transport.abort()
            return
        for message in messages:
            if isinstance(message, control.Changed):
                self._executor.changed(message.updates)
            elif isinstance(message, control.Described):
                self._described(message)
            else:
                self._log.info("supervised", instance=message.instance, known=len(message.known))
                known = self._executor.settled((*message.known, *self._beside()))
                self._executor.tell(on.SupervisorUp(message.instance, known))
                self.journal_read.set()

    def _described(self, message: control.Described) -> None:
        answer = self._questions.get(message.request)
        if answer is not None and not answer.done():
            answer.set_result(message)

    async def retire(self, timeout_s: float = 5.0) -> None:
        """Ask supervisor and keeper to end, which they do if nothing is unfinished."""
        transport = self._transport
        if transport is not None:
            transport.write(control.encode([control.Retire()]))
            protocol = transport.get_protocol()
            assert isinstance(protocol, _Channel)
            await asyncio.wait([protocol.closed], timeout=timeout_s)
