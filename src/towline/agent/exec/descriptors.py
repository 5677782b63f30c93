"""Pipes and terminals on the event loop: a piece at a time, never blocking it."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
import termios

from towline.wire.exec import CHUNK_BYTES

_END_OF_INPUT = b"\x04"
_AT_END = (errno.EIO, errno.EBADF)
"""What the reader of a terminal meets where nobody has it open any more, and who reads what was closed."""


class Source:
    """Reads one descriptor, which it owns, to its end; or, after ``finish``, until it is empty."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._waiting: asyncio.Future[None] | None = None
        self._finished = False

    async def read(self) -> bytes:
        """The next bytes; b"" at the end."""
        while self._fd >= 0:
            try:
                return os.read(self._fd, CHUNK_BYTES)
            except BlockingIOError:
                if self._finished:
                    return b""
                await self._readable()
            except OSError as error:
                if error.errno in _AT_END:
                    return b""
                raise
        return b""

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        waiting = self._waiting = loop.create_future()
        loop.add_reader(self._fd, _wake, waiting)
        try:
            await waiting
        finally:
            if self._fd >= 0:
                loop.remove_reader(self._fd)
            self._waiting = None

    def finish(self) -> None:
        """Nobody writes any more, even where somebody still might."""
        self._finished = True
        if self._waiting is not None:
            _wake(self._waiting)

    def close(self) -> None:
        if self._fd >= 0:
            if self._waiting is not None:
                asyncio.get_running_loop().remove_reader(self._fd)
                _wake(self._waiting)
            os.close(self._fd)
            self._fd = -1


class Sink:
    """Writes one descriptor, which it owns. ``terminal``: its end of input is a character."""

    def __init__(self, fd: int, terminal: bool = False) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._terminal = terminal

    async def write(self, data: bytes) -> None:
        """Raises BrokenPipeError where nobody reads it."""
        rest = memoryview(data)
        while rest:
            if self._fd < 0:
                raise BrokenPipeError
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                await self._writable()
            except BrokenPipeError:
                raise
            except OSError as error:  # a terminal that nobody has open
                raise BrokenPipeError from error

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self._fd, _wake, waiting)
        try:
            await waiting
        finally:
            loop.remove_writer(self._fd)

    async def end(self) -> None:
        """The end of the input."""
        if self._terminal:
            await self.write(_END_OF_INPUT)
        else:
            self.close()

    def close(self) -> None:
        """Not while somebody writes."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def set_size(fd: int, rows: int, columns: int) -> None:
    """Of a terminal; its foreground processes are told (SIGWINCH)."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
