"""A command inside a running attempt: its streams, its size and its end, over a WebSocket."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from towline.client.cluster.remote import Remote
from towline.errors import OperatorError, RequestError, TowlineError, Unavailable
from towline.wire.exec import (
    STDIN,
    Credit,
    Data,
    Eof,
    Exit,
    FromClient,
    FromCommand,
    Open,
    Refused,
    Resize,
    Returns,
    Signal,
    Started,
    Window,
    chunks,
    decode_from_command,
    encode,
)
from towline.wire.sockets import NOT_OPENED, OPTIONS

_NOT_NOW = 503
_OPEN_TIMEOUT_S = 30.0
_LOST = "The connection to the server is lost; what ran inside was killed with it."


class CannotStart(OperatorError):
    """The element runs, but the command could not be started in it. ``status`` is a shell's: 126, or 127
    where there is no such program."""

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        super().__init__(message)


class Exec:
    """Made by ``Job.exec``. Read ``output`` to its end; then ``ended`` says how the command did."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._window = Window()
        self._returns = Returns()
        self._more: list[FromCommand] = []
        self.ended: Exit | None = None

    async def start(self, wanted: Open) -> None:
        await self._say(wanted)
        first = await self._next()
        if isinstance(first, Refused):
            raise _error(first)
        if not isinstance(first, Started):
            raise OperatorError("The server did not say that the command has started.")

    async def output(self) -> AsyncIterator[Data]:
        """All that it writes (``stream`` is 1 or 2), until it has ended. Say ``written`` of each. Raises
        Unavailable where the connection breaks."""
        while True:
            message = await self._next()
            match message:
                case Data():
                    yield message
                case Credit():
                    self._window.grant(message.count)
                case Exit():
                    self.ended = message
                    return
                case Refused():
                    raise _error(message)
                case Started():
                    continue

    async def written(self, data: Data) -> None:
        """This piece of output is done with: more may come in its place."""
        credit = self._returns.written(len(data.data))
        if credit is not None:
            await self._say(credit)

    async def write(self, data: bytes) -> None:
        """To its stdin; waits while it does not read. ``output`` is to be read meanwhile."""
        for piece in chunks(data):
            await self._window.take(len(piece))
            await self._say(Data(STDIN, piece))

    async def end_input(self) -> None:
        await self._say(Eof())

    async def resize(self, rows: int, columns: int) -> None:
        await self._say(Resize(rows, columns))

    async def signal(self, name: str) -> None:
        """``INT``, ``TERM`` and so on, to its process group."""
        await self._say(Signal(name))

    async def _say(self, message: FromClient) -> None:
        # Where the connection is closed, whoever reads is told: the command's end may be there to be read.
        with contextlib.suppress(ConnectionClosed):
            await self._connection.send(encode([message]))

    async def _next(self) -> FromCommand:
        if not self._more:
            try:
                frame = await self._connection.recv(decode=False)
                self._more = decode_from_command(frame)[::-1]
            except ConnectionClosed:
                raise Unavailable(_LOST) from None
            except msgspec.DecodeError as error:
                raise OperatorError(f"The server sent what is no message: {error}") from None
        return self._more.pop()


@asynccontextmanager
async def opened(at: str | Remote, path: str, wanted: Open) -> AsyncGenerator[Exec]:
    """See ``Job.exec``."""
    try:
        connection = await _connected(at, path)
    except InvalidStatus as error:
        status = error.response.status_code
        if status == _NOT_NOW:
            raise Unavailable(f"The server cannot do this now: {_said(error)}") from None
        raise RequestError(f"The server at {at} refuses to run commands ({status}): {_said(error)}") from None
    except NOT_OPENED as error:
        raise Unavailable(f"No server answers on {at}: {error}") from None
    async with connection:
        running = Exec(connection)
        await running.start(wanted)
        yield running


async def _connected(at: str | Remote, path: str) -> ClientConnection:
    options = OPTIONS | {"max_size": None, "open_timeout": _OPEN_TIMEOUT_S}
    if isinstance(at, Remote):
        options |= {"ssl": at.context(), "additional_headers": at.headers, "proxy": None}
        distrusted: dict[int, str] = {}
        failed: Exception | None = None
        for server, url in enumerate(at.urls):
            try:
                return await connect(f"wss{url.removeprefix('https')}{path}", **options)
            except InvalidStatus as error:
                if error.response.status_code != _NOT_NOW:
                    raise
                failed = error
            except NOT_OPENED as error:
                if why := at.distrust(server, error):
                    distrusted[server] = why
                    failed = failed or error
                else:
                    failed = error
        at.explain(distrusted)
        assert failed is not None
        raise failed
    return await unix_connect(at, f"ws://localhost{path}", **options)


def _said(error: InvalidStatus) -> str:
    try:
        return str(msgspec.json.decode(error.response.body or b"")["detail"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return "that takes a token with the role submitter"


def _error(refused: Refused) -> TowlineError:
    match refused.kind:
        case "request":
            return RequestError(refused.message)
        case "unavailable":
            return Unavailable(refused.message)
        case "cannot_start":
            return CannotStart(refused.message, refused.status)
        case _:
            return OperatorError(refused.message)
