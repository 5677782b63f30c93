"""The ``oci`` runtime where an ordinary user runs it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from towline.runtime.linux.spaces import hybrid_mount
from towline.runtime.oci.binds import Owner
from towline.runtime.oci.config import build_config
from towline.runtime.oci.engine import ENGINES, Engine
from towline.runtime.oci.overlay import Overlay
from towline.runtime.oci.rootless.space import Space, SpaceUnavailable, enter
from towline.runtime.oci.rootless.starter import forget_refusal, refusal, start
from towline.runtime.oci.runtime import (
    OciRuntime,
    kill_starters,
    read_pid,
    show_folders,
    starter_env,
    write_config,
)
from towline.runtime.oci.spec import OciData, read_data
from towline.runtime.port import Plan, StartFailed, Usage

_ROOT_OF_SPACE = Owner(0, 0, 0, 0)
_AS_ITS_OWNER = 'chown -Rh 0:0 -- "$1"; shift; exec "$@"'


class RootlessRuntime(OciRuntime):
    """No cgroups: an ordinary user may make none. The attempt's mounts are in mount namespaces of its own,
    and found by the name of the overlay's source."""

    def __init__(self, node_dir: str) -> None:
        super().__init__(node_dir)
        self._space = Space()
        self._hidden = hybrid_mount()
        self._over: set[str] = set()

    def _overlay(self, plan: Plan) -> Overlay:
        return Overlay(*(f"{plan.directory}/{name}" for name in ("upper", "work", "root")))

    def _start(self, plan: Plan, data: OciData, engine: Engine, output: tuple[int, int]) -> int:
        program = engine.program()
        try:
            space = self._space.descriptor()
        except SpaceUnavailable as error:
            raise StartFailed(f"{error}.") from error
        overlay, mark = self._overlay(plan), self._name(plan)
        write_config(plan, build_config(plan, data, overlay.root, None, mark, self._oom_score))
        forget_refusal(plan.directory)

        def get_ready() -> None:
            overlay.mount(data.rootfs, mark=mark)
            show_folders(plan, data, overlay.root, None, _ROOT_OF_SPACE)

        argv = engine.rootless().run_argv(self._state(engine), plan.attempt, plan.directory)
        # crun refuses to run where it sees that cgroups are hybrid.
        hidden = self._hidden if engine.name == "crun" else None
        return start(
            lambda: enter(space, hidden), get_ready, plan.directory, program, argv, starter_env(), output,
            self.evidence,
        )  # fmt: skip

    def confirm(self, plan: Plan, status: int) -> int:
        refused = refusal(plan.directory)
        if refused is not None:
            raise refused
        return super().confirm(plan, status)

    def _seen_root(self, plan: Plan, data: OciData) -> str:
        """The container's own is mounted for itself alone."""
        return data.rootfs

    def limits(self, plan: Plan, pid: int) -> dict[str, int]:
        """Only that of processes can be kept."""
        for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
            if line.startswith("Max processes") and (words := line[13:].split())[0].isdecimal():
                return {"pids": int(words[0])}
        return {}

    def _usage(self, plan: Plan, data: OciData) -> Usage:
        self._over.add(plan.attempt)
        return Usage()

    def _processes(self, plan: Plan) -> list[int]:
        return list(_with_root(self._name(plan)))

    # --- after its end ----------------------------------------------------------------------------
    def cleanup(self, plan: Plan) -> tuple[str, ...] | None:
        if plan.attempt in self._over:  # its first process has ended, so the kernel has ended all
            self._over.discard(plan.attempt)
        else:
            if plan.attempt not in self._launched and read_pid(plan) is None:
                kill_starters(plan.attempt, self._state(self._engine_of(plan)))
            self._kill(plan)
        self._launched.discard(plan.attempt)
        self._drop_state(plan)
        gone = self._remove(plan, self._overlay(plan))
        if gone and self._hand_over(plan):
            return None
        return self._as_root_of_space(plan, () if gone else ("rm", "-rf", "--", *self._overlay(plan)))

    def cleaned(self, plan: Plan) -> None:
        self._kill(plan)
        self._drop_state(plan)
        self._remove(plan, self._overlay(plan))

    def _kill(self, plan: Plan) -> None:
        for pid in self._processes(plan):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _drop_state(self, plan: Plan, engine_was_asked: bool = False) -> bool:
        for engine in ENGINES.values():
            shutil.rmtree(f"{self._state(engine)}/{plan.attempt}", ignore_errors=True)
        return True

    def _remove(self, plan: Plan, overlay: Overlay) -> bool:
        forget_refusal(plan.directory)
        with suppress(OSError):
            os.chmod(f"{overlay.work}/work", 0o700)  # the kernel leaves it closed
        return super()._remove(plan, overlay)

    def _hand_over(self, plan: Plan) -> bool:
        """Whether all in TOW_OUT is the user's already: without rights of its own a container is him."""
        try:
            return not read_data(plan).leaves_others
        except StartFailed:
            return True

    def _as_root_of_space(self, plan: Plan, command: tuple[str, ...]) -> tuple[str, ...] | None:
        """A command for what belongs to his subordinate ids."""
        try:
            space = self._space.descriptor()
        except SpaceUnavailable:
            return command or None
        entered = ("nsenter", f"--user=/proc/{os.getpid()}/fd/{space}", "--setuid=0", "--setgid=0", "--")
        return (*entered, "sh", "-c", _AS_ITS_OWNER, "sh", plan.out, *(command or ("true",)))


def _with_root(mark: str) -> Iterator[int]:
    """Processes that have an overlay with this source among their mounts: nothing in a container can change
    that, and nothing outside of it has it but the engine that starts it."""
    wanted = f" - overlay {mark} ".encode()
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(OSError):
                if wanted in Path(f"/proc/{name}/mountinfo").read_bytes():
                    yield int(name)
