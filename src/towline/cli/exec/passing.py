"""What passes between the user and a command inside: input, output, signals, and the terminal's size."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from towline.cli.exec.terminal import RawTerminal, size
from towline.cli.screen.descriptors import Unwritable, writable

if TYPE_CHECKING:
    from towline.client.exec import Exec

STDIN, STDOUT, STDERR = 0, 1, 2
_READ_BYTES = 64 * 1024
_PIPE_BUF_BYTES = 4096
"""So much a pipe takes without blocking once it takes anything."""
_PASSED_ON = {signal.SIGINT: "INT", signal.SIGTERM: "TERM", signal.SIGQUIT: "QUIT"}


class Left(Exception):
    """The user has gone, or wants to, and the command with him. ``number`` is the signal that said so."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__()


class Passing:
    """``terminal`` is None where the command has none. ``reads``: whether it gets our stdin."""

    def __init__(self, command: Exec, terminal: RawTerminal | None, reads: bool) -> None:
        self._command = command
        self._terminal = terminal
        self._reads = reads
        self._signals: asyncio.Queue[int] = asyncio.Queue()

    async def run(self) -> None:
        """Until the command has ended and all of its output is written. Raises Left, Unavailable,
        BrokenPipeError and Unwritable."""
        self._heed_signals()
        work = [asyncio.create_task(one) for one in (self._copy_out(), self._copy_in(), self._pass_signals())]
        out, _, signals = work
        try:
            await asyncio.wait([out, signals], return_when=asyncio.FIRST_COMPLETED)
            (signals if signals.done() else out).result()
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    # --- signals ----------------------------------------------------------------------------------
    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (*_PASSED_ON, signal.SIGHUP):
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        if self._terminal is not None:
            for number in (signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP):
                loop.add_signal_handler(number, self._signals.put_nowait, number)

    async def _pass_signals(self) -> None:
        """To the command, the first time; who asks again means us. Raises Left."""
        seen: set[int] = set()
        while True:
            number = await self._signals.get()
            if number in (signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP):
                await self._terminal_changed(number)
            elif number in seen or number not in _PASSED_ON:
                raise Left(number)
            else:
                seen.add(number)
                await self._command.signal(_PASSED_ON[signal.Signals(number)])

    async def _terminal_changed(self, number: int) -> None:
        assert self._terminal is not None
        if number == signal.SIGTSTP:
            self._terminal.give_back()
            os.kill(os.getpid(), signal.SIGSTOP)
            return  # a SIGCONT comes by itself
        if number == signal.SIGCONT:
            self._terminal.take()
        await self._command.resize(*size())

    # --- input ------------------------------------------------------------------------------------
    async def _copy_in(self) -> None:
        """Our stdin, to its end. That it cannot be read is an end too."""
        if self._reads:
            with suppress(OSError):
                while data := await _read(STDIN):
                    await self._command.write(data)
        await self._command.end_input()

    # --- output -----------------------------------------------------------------------------------
    async def _copy_out(self) -> None:
        if self._terminal is not None:
            await self._command.resize(*size())  # it may have changed before we listened
        async for data in self._command.output():
            if data.stream == STDERR:
                with suppress(OSError):  # there is nobody to tell
                    await _write(STDERR, data.data)
            else:
                await _write_stdout(data.data)
            await self._command.written(data)


async def _write_stdout(data: bytes) -> None:
    try:
        await _write(STDOUT, data)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritable(error.errno, error.strerror) from None


async def _write(fd: int, data: bytes) -> None:
    """A slow reader must not keep us from hearing signals."""
    rest = memoryview(data)
    while rest:
        await writable(fd)
        with suppress(BlockingIOError):  # somebody else has made it so
            rest = rest[os.write(fd, rest[:_PIPE_BUF_BYTES]) :]


async def _read(fd: int) -> bytes:
    """The next bytes of what somebody else may read too, so that it is not made non-blocking."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except PermissionError:  # a file, which never lets us wait
        return os.read(fd, _READ_BYTES)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
    with suppress(BlockingIOError):
        return os.read(fd, _READ_BYTES)
    return await _read(fd)
