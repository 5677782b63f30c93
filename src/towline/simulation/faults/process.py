"""A simulated process: an event loop of its own on virtual time, so that production's coroutines run in it.

A step is what an event loop calls between two awaits. Before any step the process may be killed or frozen, so
a crash can come at every await. Processes share nothing but the network; each has clocks of its own, which
drift."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from towline.simulation.faults.world import MS, SECOND, START_MS, World

MOST_STEPS = 20_000
"""In one moment; a process that needs more goes round in circles."""
BURIALS = 20
MOST_DRIFT = 0.005
"""How much faster or slower than the world's a clock may run: many times what real ones do."""


class Clocks:
    """One machine's: CLOCK_MONOTONIC and CLOCK_BOOTTIME, which drift, and a wall clock that may be wrong."""

    def __init__(self, world: World) -> None:
        self._world = world
        random = world.random
        self._rate = 1.0 + random.choice((0.0, 1.0)) * random.uniform(-MOST_DRIFT, MOST_DRIFT)
        self._begun_us = random.randrange(SECOND, 1000 * SECOND)
        self.wall_off_ms = random.choice((0, 0, random.randint(-60_000, 60_000)))

    def boot_us(self) -> int:
        return self._begun_us + int(self._world.now_us * self._rate)

    def boot_ms(self) -> int:
        return self.boot_us() // MS

    def until_us(self, boot_us: float) -> int:
        """How long it is until this clock says so."""
        return int((boot_us - self._begun_us) / self._rate) + 1 - self._world.now_us

    def now_ms(self) -> int:
        """What a server's ``Clock`` says: wall time when it started, moved on by the monotonic clock."""
        return START_MS + self.wall_off_ms + self.boot_ms()


class Process:
    """``crash`` and ``freeze`` strike at the next step, or so many steps later."""

    def __init__(self, world: World, name: str, clocks: Clocks | None = None) -> None:
        self.world = world
        self.name = name
        self.clocks = clocks or Clocks(world)
        self.alive = True
        self.frozen = False
        self.loop = Loop(self)
        self.died: Callable[[], None] = lambda: None
        """Called once when it has been killed."""
        self._ready: deque[asyncio.Handle] = deque()
        self._tasks: list[asyncio.Task[Any]] = []
        self._planned = False
        self._fuse: int | None = None
        self._fused: Callable[[], None] = self.crash

    def start(self, main: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Have a coroutine run as a task of this process, from outside of it."""
        return self.loop.create_task(main)

    def light(self, steps: int, what: Callable[[], None]) -> None:
        """Let ``what`` strike this process after so many more of its steps."""
        self._fuse, self._fused = steps, what

    def freeze(self) -> None:
        """As by SIGSTOP: nothing of it runs, whatever comes waits."""
        if self.alive:
            self.frozen = True
            self.world.tell(self.name, "frozen")

    def thaw(self) -> None:
        if self.frozen and self.alive:
            self.frozen = False
            self.world.tell(self.name, "goes on")
            self._plan()

    def crash(self) -> None:
        """As by SIGKILL: gone at once; nothing that was not sent leaves any more."""
        if not self.alive:
            return
        self.alive = self.frozen = False
        self.world.tell(self.name, "killed")
        self.died()
        self._bury()

    # --- steps --------------------------------------------------------------------------------------
    def add(self, handle: asyncio.Handle) -> None:
        self._ready.append(handle)
        if not self._planned:
            self._plan()

    def made(self, task: asyncio.Task[Any]) -> None:
        self._tasks.append(task)
        if len(self._tasks) > 200:
            self._tasks = [task for task in self._tasks if not task.done()]

    def due(self, handle: asyncio.Handle) -> None:
        """A timer's time has come."""
        if self.alive and not handle.cancelled():
            self.add(handle)

    def _plan(self) -> None:
        if self._ready and not self.frozen and self.alive:
            self._planned = True
            self.world.after(int(self.world.random.random() * 300), self._run)

    def _run(self) -> None:
        self._planned = False
        ready = self._ready
        asyncio._set_running_loop(self.loop)
        try:
            for _ in range(MOST_STEPS):
                if not ready or not self.alive or self.frozen:
                    return
                if self._fuse is not None:
                    self._fuse -= 1
                    if self._fuse < 0:
                        self._fuse = None
                        self._fused()
                        continue
                handle = ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            asyncio._set_running_loop(None)
        self.world.breach(f"{self.name} goes round in circles")

    def _bury(self) -> None:
        """End all its coroutines. What they still do has no effect: nothing of a dead process is sent."""
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(self.loop)
        try:
            for _ in range(BURIALS):
                left = [task for task in self._tasks if not task.done()]
                if not left:
                    break
                for task in left:
                    task.cancel()
                while self._ready:
                    handle = self._ready.popleft()
                    if not handle.cancelled():
                        handle._run()
        finally:
            asyncio._set_running_loop(outer)
        self._tasks.clear()


class Loop(asyncio.AbstractEventLoop):
    """As much of an event loop as coroutines need that do no I/O of their own."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def time(self) -> float:
        return self._process.clocks.boot_us() / SECOND

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._process.add(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        process = self._process
        process.world.after(process.clocks.until_us(when * SECOND), process.due, handle)
        return handle

    def _timer_handle_cancelled(self, _: asyncio.TimerHandle) -> None:
        """What a cancelled timer asks for; it is looked at when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: object = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=str(name or "task"), context=context)
        self._process.made(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Nobody has asked for an exception: in a server that lives it is a bug."""
        process, error = self._process, context.get("exception")
        if process.alive:
            process.world.breach(f"{process.name} met what nobody handles: {context['message']}: {error!r}")

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False
