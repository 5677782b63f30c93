"""One command inside an attempt, from its start to the message that tells its end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

from towline.agent.exec.inside import Broken, Ended, Inside
from towline.runtime.port import CannotExec
from towline.wire.exec import (
    SIGNALS,
    Allowance,
    Credit,
    Data,
    Eof,
    Exit,
    Refused,
    Resize,
    Returns,
    Signal,
    Started,
    Window,
)

_LOOKS_S = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
FromSession = Started | Data | Credit | Exit | Refused


class Session:
    """``say`` sends to the client; ``runs`` asks whether the attempt still does. ``run`` is its whole life,
    and may be cancelled at any time: then it is killed, and nothing is said any more."""

    def __init__(
        self,
        attempt: str,
        inside: Inside,
        say: Callable[[FromSession], None],
        runs: Callable[[], Awaitable[bool]],
    ) -> None:
        self.attempt = attempt
        self._inside = inside
        self._say = say
        self._runs = runs
        self._window = Window()
        self._allowance = Allowance()
        self._returns = Returns()
        self._heard: asyncio.Queue[Data | Eof] = asyncio.Queue()
        self._attempt_ended = asyncio.Event()

    def hear(self, message: Data | Eof | Credit | Resize | Signal) -> None:
        """Raises ValueError where the client sends more than it may, or what there is not."""
        match message:
            case Data():
                self._allowance.spend(len(message.data))
                self._heard.put_nowait(message)
            case Eof():
                self._heard.put_nowait(message)
            case Credit():
                self._window.grant(message.count)
            case Resize():
                self._inside.resize(message.rows, message.columns)
            case Signal():
                if message.name not in SIGNALS:
                    raise ValueError(f"{message.name[:20]!r} is no signal to pass on")
                self._inside.signal(signal.Signals[f"SIG{message.name}"])

    def attempt_ended(self) -> None:
        """It ends with its attempt."""
        self._attempt_ended.set()

    # --- its life -----------------------------------------------------------------------------------
    async def run(self) -> None:
        try:
            await self._inside.start()
        except (CannotExec, Broken) as error:
            await self._inside.close()
            self._say(await self._refusal(error))
            return
        except BaseException:
            await self._close()
            raise
        self._say(Started(self.attempt))
        try:
            last = await self._to_its_end()
        finally:
            await self._close()
        self._say(last)

    async def _close(self) -> None:
        """Also where we are cancelled: then once more, which changes nothing."""
        await asyncio.shield(self._inside.close())

    async def _refusal(self, error: CannotExec | Broken) -> Refused:
        if not await self._runs():
            return Refused(kind="request", message="The attempt has ended.")
        if isinstance(error, Broken):
            return Refused(kind="failed", message=str(error))
        kind = "cannot_start" if error.status else "request"
        return Refused(kind=kind, message=str(error), status=error.status)

    async def _to_its_end(self) -> Exit | Refused:
        feeding = asyncio.ensure_future(self._feed())
        copying = asyncio.ensure_future(self._inside.copy_out(self._send))
        waiting = asyncio.ensure_future(self._inside.wait())
        killed = asyncio.ensure_future(self._attempt_ended.wait())
        tasks = (feeding, copying, waiting, killed)
        try:
            await asyncio.wait([feeding, waiting, killed], return_when=asyncio.FIRST_COMPLETED)
            if feeding.done():
                feeding.result()
            if killed.done():
                await self._inside.kill()
            ended = await waiting
            await copying
            return await self._exit(ended)
        except Broken as error:
            return Refused(kind="failed", message=str(error))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _exit(self, ended: Ended) -> Exit:
        over = ended.killed and await self._attempt_ends()
        return Exit(code=ended.code, signal=ended.signal, attempt_ended=over)

    async def _attempt_ends(self) -> bool:
        """The kernel kills all others of a container before its first process is seen to have ended."""
        for pause_s in _LOOKS_S:
            if not await self._runs():
                return True
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._attempt_ended.wait()
                    return True
        return False

    async def _send(self, stream: int, data: bytes) -> None:
        await self._window.take(len(data))
        self._say(Data(stream, data))

    async def _feed(self) -> None:
        """The client's input to the command; after that has closed it, to nobody."""
        open_ = True
        while True:
            message = await self._heard.get()
            if isinstance(message, Eof):
                if open_:
                    with suppress(BrokenPipeError):
                        await self._inside.end_input()
                open_ = False
                continue
            if open_:
                try:
                    await self._inside.write(message.data)
                except BrokenPipeError:
                    open_ = False
            self._allowance.grant(len(message.data))
            credit = self._returns.written(len(message.data))
            if credit is not None:
                self._say(credit)
