"""A server as agents see it: a real WebSocket on a Unix socket, whose words a test chooses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

from websockets.asyncio.server import ServerConnection, unix_serve
from websockets.exceptions import ConnectionClosed

from towline.wire import messages as wire

T = TypeVar("T")


class Line:
    """One accepted link."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._unread: list[wire.FromAgent] = []
        self.frames = 0

    async def say(self, *messages: wire.FromServer) -> None:
        await self._connection.send(wire.encode(messages))

    async def say_bytes(self, frame: bytes) -> None:
        await self._connection.send(frame)

    async def hear(self, kind: type[T]) -> T:
        """The next message of this kind; heartbeats and others before it are passed over."""
        while True:
            while self._unread:
                message = self._unread.pop(0)
                if isinstance(message, kind):
                    return message
            frame = await self._connection.recv(decode=False)
            self.frames += 1
            self._unread += wire.decode_from_agent(frame)

    async def closed(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._connection.recv(decode=False)

    async def welcome(self, term: int = 1, build: str = "build") -> wire.Hello:
        hello = await self.hear(wire.Hello)
        await self.say(wire.Welcome(version=wire.VERSION, build=build, term=term))
        return hello

    async def close(self) -> None:
        await self._connection.close()


class Leader:
    def __init__(self) -> None:
        self._lines: asyncio.Queue[Line] = asyncio.Queue()

    async def accept(self) -> Line:
        return await self._lines.get()

    def forget(self) -> None:
        """Links that were opened and are gone; the next ``accept`` is of a link opened from now on."""
        while not self._lines.empty():
            self._lines.get_nowait()

    async def _serve(self, connection: ServerConnection) -> None:
        self._lines.put_nowait(Line(connection))
        await connection.wait_closed()


@contextlib.asynccontextmanager
async def listening(path: Path) -> AsyncIterator[Leader]:
    leader = Leader()
    async with unix_serve(leader._serve, str(path), compression=None, close_timeout=0.1, max_size=None):
        yield leader
