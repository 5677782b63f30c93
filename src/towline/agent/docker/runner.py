"""Runs attempts on an Engine: takes the same wishes as the supervisor, and tells the same of them.

    Run           a record each, then a task each that goes through ``following``
    StopAttempt   SIGTERM, after the grace SIGKILL; what has not started ends at once
    Forget        the record goes, as soon as the container has

What an earlier agent left is taken up from the records. Containers that carry this node's label without
a record are removed; those without the label are nobody's business here.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from towline.agent import control
from towline.agent.docker.attempt import Attempt
from towline.agent.docker.client import Engine, EngineGone, EngineRefused
from towline.agent.docker.exec import EngineInside
from towline.agent.docker.following import Following
from towline.agent.docker.records import Record, Records
from towline.agent.exec.inside import Inside
from towline.agent.supervision import kernel
from towline.core.commands import AttemptUpdate
from towline.model.states import Reason
from towline.runtime.docker.spec import Traits
from towline.runtime.port import CannotExec, Wish

FOLDER = "docker"
_SAY_RUNNING_S = 0.1
_KILL_AGAIN_S = 1.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


class DockerRunner:
    """``tell`` hears of what changes. Made in any thread's loop but used in one; ``open`` begins."""

    def __init__(self, node_dir: Path, tell: Callable[[Sequence[AttemptUpdate]], None]) -> None:
        self._node_dir = node_dir
        self._tell = tell
        self._records = Records(node_dir / FOLDER)
        self._attempts = {
            record.plan.attempt: Attempt(record, resumed=True) for record in self._records.load()
        }
        self._following: Following | None = None
        self._local = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._log = structlog.get_logger("agent.docker")

    @property
    def busy(self) -> bool:
        """Whether anything of it runs, or is still to be taken away."""
        return any(not each.record.cleaned for each in self._attempts.values())

    def known(self) -> list[AttemptUpdate]:
        """All that has not been forgotten, as it stands."""
        return [each.now() for each in self._attempts.values() if not each.record.forgotten]

    def open(self, engine: Engine, traits: Traits, node: str) -> None:
        """An Engine has been found: take up what an earlier agent left there."""
        self._local = traits.local
        self._following = Following(
            engine, traits, node, str(self._node_dir), self._save, self._runs, self._filled
        )  # fmt: skip
        self._spawn(self._sweep(engine, node))
        for attempt in self._attempts.values():
            self._serve(attempt)

    async def close(self) -> None:
        """Nothing that runs is touched."""
        for attempt in self._attempts.values():
            attempt.quiet()
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._following is not None:
            await self._following.engine.close()

    def say(self, message: control.ToSupervisor) -> None:
        match message:
            case control.Run():
                for plan in message.plans:
                    self._accept(Record(plan=plan))
            case control.StopAttempt():
                attempt = self._attempts.get(message.attempt)
                if attempt is not None:
                    self._stop(attempt, message.reason, message.grace_ms)
            case control.Forget():
                for name in message.attempts:
                    self._forget(name)
            case control.Retire() | control.Describe():
                pass

    # --- further commands ---------------------------------------------------------------------------
    def has(self, name: str) -> bool:
        """Whether it is an attempt of an Engine's."""
        return name in self._attempts

    def runs(self, name: str) -> bool:
        attempt = self._attempts.get(name)
        if attempt is None or attempt.gone or attempt.record.update is not None:
            return False
        return attempt.record.started_ms is not None

    async def still_runs(self, name: str) -> bool:
        """The same, as the Engine knows it now."""
        if self._following is None or not self.runs(name):
            return False
        try:
            seen = await self._following.engine.inspect(self._following.name(self._attempts[name]))
        except (EngineGone, EngineRefused):
            return True  # nobody knows
        return seen is not None and seen.running

    def inside(self, name: str, wish: Wish) -> Inside:
        """A command in its running container. Raises CannotExec."""
        if self._following is None or not self.runs(name):
            raise CannotExec("The attempt does not run (any more).", 0)
        container = self._following.name(self._attempts[name])
        return EngineInside(self._following.engine, container, wish, self._local)

    # --- wishes -------------------------------------------------------------------------------------
    def _accept(self, record: Record) -> None:
        known = self._attempts.get(record.plan.attempt)
        if known is not None:
            if known.record.update is not None and not known.record.forgotten:
                self._tell([known.now()])
            return
        attempt = Attempt(record, resumed=False)
        self._attempts[attempt.id] = attempt
        try:
            self._records.save(record)
        except OSError as error:
            self._end(attempt, attempt.failed(Reason.DISK_FULL, f"The node cannot write: {error.strerror}."))
            return
        self._serve(attempt)

    def _serve(self, attempt: Attempt) -> None:
        if self._following is None:
            return  # what is to be done is done when there is an Engine
        if attempt.record.update is not None:
            self._spawn(self._clean(attempt, self._following))
        else:
            attempt.task = self._spawn(self._attend(attempt, self._following))

    def _stop(self, attempt: Attempt, reason: str, grace_ms: int) -> None:
        record = attempt.record
        if record.update is not None or attempt.gone:
            return  # an end that was there before stands
        kill_ms = kernel.boottime_ms() + grace_ms
        if record.stop is not None and record.kill_ms is not None and kill_ms >= record.kill_ms:
            return
        record.stop, record.kill_ms = record.stop or reason, kill_ms
        if not record.starting:
            if attempt.task is not None:
                attempt.task.cancel()
            self._end(attempt, attempt.failed(reason, ""))
            return
        self._save(attempt)
        if record.started_ms is not None:
            self._send_stop(attempt)

    def _send_stop(self, attempt: Attempt) -> None:
        """The signals of the record's stop, as far as they are due."""
        record = attempt.record
        if record.kill_ms is None:
            return
        left_s = (record.kill_ms - kernel.boottime_ms()) / 1000
        if attempt.kill is not None:
            attempt.kill.cancel()
        if left_s > 0 and not record.termed:
            record.termed = True
            self._save(attempt)
            self._signal(attempt, signal.SIGTERM)
        attempt.kill = asyncio.get_running_loop().call_later(max(0.0, left_s), self._kill, attempt)

    def _kill(self, attempt: Attempt) -> None:
        if attempt.gone or attempt.record.update is not None:
            return
        self._signal(attempt, signal.SIGKILL)
        attempt.kill = asyncio.get_running_loop().call_later(_KILL_AGAIN_S, self._kill, attempt)

    def _signal(self, attempt: Attempt, number: int) -> None:
        if self._following is not None:
            self._spawn(self._send(attempt, number, self._following))

    async def _send(self, attempt: Attempt, number: int, following: Following) -> None:
        try:
            await following.signal(attempt, number)
        except (EngineGone, EngineRefused) as error:
            self._log.warning("a signal did not reach it", attempt=attempt.id, reason=str(error))

    def _forget(self, name: str) -> None:
        attempt = self._attempts.get(name)
        if attempt is None or attempt.record.update is None:
            return
        attempt.record.forgotten = True
        if attempt.record.cleaned:
            self._drop(attempt)
        else:
            self._save(attempt)

    def _drop(self, attempt: Attempt) -> None:
        del self._attempts[attempt.id]
        self._records.remove(attempt.record)

    # --- what becomes of it -------------------------------------------------------------------------
    async def _attend(self, attempt: Attempt, following: Following) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                update = await following.to_its_end(attempt)
                break
            except EngineGone as error:
                self._log.warning("the engine does not answer", attempt=attempt.id, reason=str(error))
            except Exception as error:
                self._log.exception("following failed", attempt=attempt.id)
                update = attempt.failed(Reason.START_FAILED, f"Towline met an error of its own: {error!r}")
                break
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
        self._end(attempt, update)

    def _runs(self, attempt: Attempt) -> None:
        """Its container has started, now or in an earlier agent's time."""
        record = attempt.record
        loop = asyncio.get_running_loop()
        if record.since_ms is None:  # of a version that did not keep it
            record.since_ms = kernel.boottime_ms()
        if record.plan.timeout_ms is not None and attempt.timeout is None:
            left_ms = record.since_ms + record.plan.timeout_ms - kernel.boottime_ms()
            attempt.timeout = loop.call_later(max(0, left_ms) / 1000, self._timed_out, attempt)
        self._send_stop(attempt)
        loop.call_later(_SAY_RUNNING_S, self._say_running, attempt)

    def _filled(self, attempt: Attempt) -> None:
        if attempt.record.stop is None:
            self._stop(attempt, Reason.DISK_FULL, 0)

    def _timed_out(self, attempt: Attempt) -> None:
        if attempt.record.stop is None:
            self._stop(attempt, Reason.TIMED_OUT, attempt.record.plan.grace_ms)

    def _say_running(self, attempt: Attempt) -> None:
        if attempt.record.update is None:
            self._tell([attempt.now()])

    def _end(self, attempt: Attempt, update: AttemptUpdate) -> None:
        """On record before anybody hears of it."""
        attempt.quiet()
        attempt.gone = True
        attempt.record.update = update
        with suppress(OSError):
            Path(attempt.record.plan.out).rmdir()  # nothing was written there: no artifacts
        self._save(attempt)
        if self._following is not None:
            self._spawn(self._clean(attempt, self._following))
        self._tell([update])

    async def _clean(self, attempt: Attempt, following: Following) -> None:
        pause_s = _FIRST_PAUSE_S
        while not attempt.record.cleaned:
            try:
                await following.clean(attempt)
                attempt.record.cleaned = True
            except (EngineGone, EngineRefused) as error:
                self._log.warning("clean-up is tried again", attempt=attempt.id, reason=str(error))
                await asyncio.sleep(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
        if attempt.record.forgotten and attempt.id in self._attempts:
            self._drop(attempt)
        elif attempt.id in self._attempts:
            self._save(attempt)

    async def _sweep(self, engine: Engine, node: str) -> None:
        """Remove containers of this node that nobody knows of."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                for name, container in await engine.ours(node):
                    if name not in self._attempts:
                        self._log.info("an unknown container is removed", attempt=name, container=container)
                        await engine.remove(container)
                return
            except (EngineGone, EngineRefused) as error:
                self._log.warning("the engine does not answer", reason=str(error))
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    def _save(self, attempt: Attempt) -> None:
        try:
            self._records.save(attempt.record)
        except OSError as error:
            self._log.error("a record cannot be written", attempt=attempt.id, reason=str(error))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
