"""A further command in an Engine's container: the Engine's own exec, attached to.

An Engine says a command's pid and exit code, and passes signals on to none; what has to be ended is found
by its mark, which works where the Engine is on this machine.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress

from towline.agent.docker.client import Engine, EngineGone, EngineRefused
from towline.agent.exec.inside import Broken, Ended, Send
from towline.runtime.docker.frames import Frames
from towline.runtime.exec.marks import NAME, is_marked, kill_marked
from towline.runtime.port import CannotExec, Wish
from towline.wire.exec import CHUNK_BYTES, STDOUT

_LOOK_S = 0.02
_LOOK_FAR_S = 0.5
_REST_S = 2.0
_SETTLE_S = 0.1
_FORGOTTEN = 404
_NOT_STARTED = (126, 127)
_END_OF_INPUT = b"\x04"


class EngineInside:
    """See ``Inside``. ``local``: the Engine is on this machine, where all that was started can be ended."""

    def __init__(self, engine: Engine, container: str, wish: Wish, local: bool) -> None:
        self._local = local
        self._engine = engine
        self._container = container
        self._wish = wish
        self._id = ""
        self._pid = 0
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._drained = asyncio.Event()
        self._resizing: asyncio.Task[None] | None = None
        self._size = (0, 0)
        self._closing: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        try:
            self._id = await self._engine.exec_create(self._container, self._config())
            self._reader, self._writer = await self._engine.exec_attach(
                self._id, tty=self._wish.terminal is not None
            )  # fmt: skip
            await self._await_start()
        except EngineRefused as error:
            raise _cannot(str(error)) from None
        except EngineGone as error:
            raise Broken(f"The engine does not answer: {error}") from None
        if self._wish.terminal is not None:
            self.resize(*self._wish.terminal)

    def _config(self) -> dict[str, object]:
        wish = self._wish
        config: dict[str, object] = {
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": wish.terminal is not None,
            "Cmd": list(wish.argv),
            "Env": [f"{name}={value}" for name, value in {**wish.env, NAME: wish.mark}.items()],
        }
        if wish.user is not None:
            config["User"] = wish.user
        if wish.workdir is not None:
            config["WorkingDir"] = wish.workdir
        if wish.terminal is not None:
            config["ConsoleSize"] = list(wish.terminal)
        return config

    async def _await_start(self) -> None:
        """Until it has a pid. Where it never gets one, what comes as its output is the engine's own."""
        while True:
            running, pid, code = await self._engine.exec_state(self._id)
            if pid:
                self._pid = pid
                return
            if not running and code in _NOT_STARTED:
                raise _cannot(await self._words())
            if not running and code:
                return
            await asyncio.sleep(_LOOK_S)

    async def _words(self) -> str:
        parts: list[bytes] = []
        with suppress(TimeoutError, Broken):
            async with asyncio.timeout(_REST_S):
                async for _, data in self._pieces():
                    parts.append(data)
        return b"".join(parts).decode(errors="replace").strip()[-500:] or "nothing"

    # --- while it runs ----------------------------------------------------------------------------
    async def _pieces(self) -> AsyncIterator[tuple[int, bytes]]:
        assert self._reader is not None
        frames = Frames()
        try:
            while data := await self._reader.read(CHUNK_BYTES):
                if self._wish.terminal is not None:
                    yield STDOUT, data
                    continue
                for stream, piece in frames.feed(data):
                    yield stream + 1, piece
        except (OSError, ValueError) as error:
            raise Broken(f"The engine's connection broke: {error}") from None

    async def copy_out(self, send: Send) -> None:
        try:
            async for stream, data in self._pieces():
                await send(stream, data)
        finally:
            self._drained.set()

    async def write(self, data: bytes) -> None:
        assert self._writer is not None
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            raise BrokenPipeError from None

    async def end_input(self) -> None:
        assert self._writer is not None
        if self._wish.terminal is not None:
            await self.write(_END_OF_INPUT)
        elif self._writer.can_write_eof():
            with suppress(OSError):
                self._writer.write_eof()

    def resize(self, rows: int, columns: int) -> None:
        """The latest size is the one that counts."""
        self._size = rows, columns
        if self._resizing is None or self._resizing.done():
            self._resizing = asyncio.get_running_loop().create_task(self._resize())

    async def _resize(self) -> None:
        """One after another: the engine might take two requests in the other order."""
        told = (0, 0)
        while told != self._size:
            told = self._size
            with suppress(EngineGone, EngineRefused):
                await self._engine.exec_resize(self._id, *told)

    @property
    def _is_here(self) -> bool:
        """Whether its pid is one of this machine's."""
        return self._pid > 0 and is_marked(self._pid, self._wish.mark)

    def signal(self, number: int) -> None:
        if self._is_here:
            with suppress(OSError):
                os.killpg(os.getpgid(self._pid), number)

    async def wait(self) -> Ended:
        try:
            while True:
                running, _, _ = await self._engine.exec_state(self._id)
                if not running:
                    break
                await self._look_later()
            # Podman says that it has ended a little before it knows how.
            await asyncio.sleep(_SETTLE_S)
            _, _, code = await self._engine.exec_state(self._id)
            number = None
        except (EngineGone, EngineRefused) as error:
            if not isinstance(error, EngineRefused) or error.status != _FORGOTTEN:
                raise Broken(f"The engine does not answer: {error}") from None
            code, number = None, signal.SIGKILL.value  # it went with its container
        await self.kill()
        if not self._local:
            self._end_reading()
        return Ended(code=code, signal=number)

    async def _look_later(self) -> None:
        """Its output ends with it, but for what it has started and left."""
        if self._drained.is_set():
            await asyncio.sleep(_LOOK_S)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_FAR_S):
                await self._drained.wait()

    def _end_reading(self) -> None:
        """What it has left behind where we cannot end it may hold its output open for ever."""
        if self._writer is not None:
            self._closing = asyncio.get_running_loop().call_later(_REST_S, self._writer.close)

    async def kill(self) -> None:
        await asyncio.to_thread(kill_marked, self._wish.mark)

    async def close(self) -> None:
        await self.kill()
        if self._resizing is not None:
            self._resizing.cancel()
        if self._closing is not None:
            self._closing.cancel()
        if self._writer is not None:
            self._writer.close()


def _cannot(said: str) -> CannotExec:
    """Engines end with 126 also where there is no such program."""
    low = said.lower()
    absent = "chdir" not in low and ("not found in $path" in low or "no such file" in low)
    return CannotExec(f"The engine says: {said}", 127 if absent else 126)
