"""One attempt from its Plan to its end: every step may be taken again, also by a later agent, since it
begins with what the Engine has now."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from towline.agent.docker.attempt import Attempt, unix_ms
from towline.agent.docker.client import Engine, EngineGone, EngineRefused, Seen
from towline.agent.docker.output import Output
from towline.agent.docker.owners import Owners, take_back
from towline.agent.supervision import kernel
from towline.core.commands import AttemptUpdate
from towline.runtime import secrets
from towline.runtime.cgroups import PARENT, Cgroups, cgroup_name, find_cgroups
from towline.runtime.docker.faults import start_failure
from towline.runtime.docker.seccomp import Profiles
from towline.runtime.docker.spec import Traits, container_config, container_name, read_data
from towline.runtime.linux.written import Written
from towline.runtime.port import StartFailed, Usage

_STARTS = 8
_SETTLE_LOOKS = 40
_SETTLE_S = 0.05
_DISK_EVERY_S = 1.0
_ENTRIES_A_LOOK = 2000
_FULL = 0.8
_REMOVED = "Its container was removed by somebody else: nobody knows how it ended."
_PODMANS_OWN = "conmon"
"""The cgroup that Podman makes beside a container's for its monitor, and leaves there."""
_NEVER_RAN = ("created", "initialized", "configured")


class Following:
    """``running`` is called when an attempt's container has started. ``save`` keeps its record.
    ``filled`` hears of one that has written more than its disk."""

    def __init__(
        self,
        engine: Engine,
        traits: Traits,
        node: str,
        node_dir: str,
        save: Callable[[Attempt], None],
        running: Callable[[Attempt], None],
        filled: Callable[[Attempt], None],
    ) -> None:
        self.engine = engine
        self._traits = traits
        self._node = node
        self._node_dir = node_dir
        self._save = save
        self._running = running
        self._filled = filled
        self._starts = asyncio.Semaphore(_STARTS)
        self._owners = Owners(engine, traits)
        self._profiles = Profiles(traits, Path(node_dir, "seccomp"))
        self._cgroups: Cgroups | None = find_cgroups() if traits.cgroup_parent else None

    def name(self, attempt: Attempt) -> str:
        return container_name(self._node, attempt.id)

    async def to_its_end(self, attempt: Attempt) -> AttemptUpdate:
        """Raises EngineGone: then it is to be called again."""
        name = self.name(attempt)
        try:
            seen = await self._started(attempt, name)
        except (StartFailed, EngineRefused) as error:
            return self._not_started(attempt, error)
        if seen is None:
            return attempt.lost(_REMOVED)
        self._runs(attempt, seen)
        try:
            return await self._follow(attempt, name, seen)
        except EngineRefused as error:
            if await self.engine.inspect(name) is None:
                return attempt.lost(_REMOVED)
            raise EngineGone(f"it refused: {error}") from None

    # --- start --------------------------------------------------------------------------------------
    async def _started(self, attempt: Attempt, name: str) -> Seen | None:
        """The container as it is after its start; None where it has vanished."""
        seen = await self.engine.inspect(name) if attempt.resumed else None
        attempt.resumed = True
        if seen is not None and attempt.record.starting:
            seen = await self._settled(name, seen)
        if seen is None and attempt.record.starting:
            return None
        if seen is not None and seen.status not in _NEVER_RAN:
            return seen
        async with self._starts:
            return await self._start(attempt, name, made=seen is not None)

    async def _settled(self, name: str, seen: Seen | None) -> Seen | None:
        """An earlier agent's start may be under way in the Engine: a second one after its end would run
        the command twice."""
        for _ in range(_SETTLE_LOOKS):
            if seen is None or seen.status not in _NEVER_RAN:
                break
            await asyncio.sleep(_SETTLE_S)
            seen = await self.engine.inspect(name)
        return seen

    async def _start(self, attempt: Attempt, name: str, made: bool) -> Seen | None:
        plan = attempt.record.plan
        if not made:
            cgroup = f"{PARENT}/{cgroup_name(attempt.id, self._node_dir)}"
            _make_folder(plan.out)
            try:
                seccomp = self._profiles.option(read_data(plan))
                config = container_config(plan, self._node, self._traits, cgroup, seccomp)
                await self.engine.create(name, config)
                await self._owners.give(name, plan)
            except OSError as error:
                raise StartFailed(f"{error.filename} cannot be used: {error.strerror}.") from error
        attempt.record.starting = True
        self._save(attempt)
        await self.engine.start(name)
        return await self.engine.inspect(name)

    def _not_started(self, attempt: Attempt, error: StartFailed | EngineRefused) -> AttemptUpdate:
        if isinstance(error, EngineRefused):
            plan = attempt.record.plan
            error = start_failure(plan, str(error), str(plan.runtime_data.get("workdir", "/")))
        return attempt.failed(error.reason, str(error))

    def _runs(self, attempt: Attempt, seen: Seen) -> None:
        if attempt.record.started_ms is None:
            attempt.record.started_ms = unix_ms(seen.started_at) or kernel.wall_ms()
            attempt.record.since_ms = self._since_ms(attempt.record.started_ms, seen.pid)
            self._save(attempt)
        if seen.running and attempt.pidfd < 0 and self._cgroups is not None:
            with suppress(OSError):
                attempt.pidfd = os.pidfd_open(seen.pid)
        self._running(attempt)

    def _since_ms(self, started_ms: int, pid: int) -> int:
        """When it started, on a clock that nobody sets: not before its process, if that is one of ours."""
        process = kernel.process(pid) if pid and self._cgroups is not None else None
        first_ms = 0 if process is None else process.start_ms
        return max(first_ms, kernel.boottime_ms() - max(0, kernel.wall_ms() - started_ms))

    # --- while it runs, and at its end --------------------------------------------------------------
    async def _follow(self, attempt: Attempt, name: str, seen: Seen) -> AttemptUpdate:
        try:
            output = Output(attempt.record.plan)
        except OSError as error:  # such as its secrets, which were in memory, after a reboot
            return attempt.lost(f"What it printed cannot be kept: {error.filename}: {error.strerror}.")
        try:
            if seen.running:
                ended = await self._while_it_runs(attempt, name, seen, output)
            else:
                ended = seen
            if ended is None:
                output.finish()
                return attempt.lost(_REMOVED)
            attempt.gone = True
            await output.take(self.engine.logs(name, follow=False), last=True)
            output.finish()
        finally:
            output.close()
        if self._never_executed(ended):
            return self._not_started(attempt, EngineRefused(500, ended.error))
        await asyncio.to_thread(take_back, attempt.record.plan)
        usage = self._usage(attempt)
        usage.disk_full = ended.exit_code != 0 and await self._is_full(attempt, name)
        return attempt.finished(ended, usage, output.last_ms)

    async def _while_it_runs(self, attempt: Attempt, name: str, seen: Seen, output: Output) -> Seen | None:
        """The container after its end; None: it has vanished."""
        reading = asyncio.ensure_future(output.take(self.engine.logs(name, follow=True)))
        watching = asyncio.ensure_future(self._watch_disk(attempt, seen.layer))
        try:
            return await self._end(name)  # what is not here yet is in the reading after the end
        finally:
            watching.cancel()
            reading.cancel()
            with suppress(asyncio.CancelledError, EngineGone, EngineRefused, ValueError):
                await reading

    async def _end(self, name: str) -> Seen | None:
        while True:
            try:
                await self.engine.wait(name)
            except EngineRefused as error:
                if error.status != 404:
                    raise EngineGone(str(error)) from None
            seen = await self.engine.inspect(name)
            if seen is None or not seen.running:
                return seen
            await asyncio.sleep(_SETTLE_S)

    async def _watch_disk(self, attempt: Attempt, layer: str) -> None:
        """TOW_OUT is a folder of this machine, on whose disk the Engine sets no end, and so, with most
        storage drivers, is the container's root: what exceeds them is seen a moment later."""
        plan = attempt.record.plan
        written = Written((plan.out, layer) if layer and self._traits.local else (plan.out,))
        while plan.disk_bytes:
            used_bytes = written.look(_ENTRIES_A_LOOK)
            if used_bytes is not None and used_bytes > plan.disk_bytes:
                self._filled(attempt)
                return
            await asyncio.sleep(_SETTLE_S if used_bytes is None else _DISK_EVERY_S)

    async def _is_full(self, attempt: Attempt, name: str) -> bool:
        """Whether its root has reached its end: file systems keep a part for themselves."""
        limit_bytes = attempt.record.plan.disk_bytes
        if not limit_bytes or not self._traits.disk:
            return False
        with suppress(EngineRefused):  # it can do without
            return await self.engine.written_bytes(name) > limit_bytes * _FULL
        return False

    @staticmethod
    def _never_executed(seen: Seen) -> bool:
        return bool(seen.error) and seen.exit_code in (126, 127, 128) and not seen.started_at

    def _usage(self, attempt: Attempt) -> Usage:
        if self._cgroups is None:
            return Usage()
        return self._cgroups.usage(cgroup_name(attempt.id, self._node_dir))

    # --- afterwards ---------------------------------------------------------------------------------
    async def clean(self, attempt: Attempt) -> None:
        """Take away its container, secrets and cgroup. Raises EngineGone, EngineRefused."""
        await self.engine.remove(self.name(attempt))
        if attempt.record.plan.secrets:
            secrets.remove(attempt.record.plan.secrets)
        if self._cgroups is not None:
            name = cgroup_name(attempt.id, self._node_dir)
            for _ in range(_SETTLE_LOOKS):
                if self._cgroups.remove(f"{name}/{_PODMANS_OWN}") and self._cgroups.remove(name):
                    return
                await asyncio.sleep(_SETTLE_S)

    async def signal(self, attempt: Attempt, number: int) -> None:
        """SIGTERM that the first process would not get is SIGKILL, as in every runtime."""
        if number != signal.SIGKILL and attempt.pidfd >= 0 and await self._is_deaf(attempt):
            number = int(signal.SIGKILL)
        await self.engine.signal(self.name(attempt), number)

    async def _is_deaf(self, attempt: Attempt) -> bool:
        """Whether the command is alone and has no handler: the kernel keeps such a signal from it."""
        seen = await self.engine.inspect(self.name(attempt))
        return seen is not None and seen.running and _ignores_term(seen.pid)


def _ignores_term(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return False
    masks = dict(line.split(":\t", 1) for line in text.splitlines() if line.startswith("Sig"))
    handled = int(masks["SigCgt"], 16) | int(masks["SigIgn"], 16)
    return not children.strip() and not handled & (1 << (signal.SIGTERM - 1))


def _make_folder(path: str) -> None:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartFailed(f"{path} cannot be made: {error.strerror}") from error
