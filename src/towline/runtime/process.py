"""The ``process`` runtime: a plain process of this machine. It isolates nothing; a user must ask for it.

An attempt is a session of its own with the attempt's directory as its working directory. Limits on
CPU, memory and pids are counted by the scheduler but not enforced.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path, PurePosixPath

from towline.runtime.port import Launched, Plan, Probe, StartFailed, Usage
from towline.runtime.spawning import DEFAULT_PATH, find_program, spawn


class ProcessRuntime:
    """``runtime_data`` may have ``workdir`` (a str): where to run, absolute or below the attempt's directory.

    ``evidence`` is set by the supervisor before each launch; see ``spawning``.
    """

    name = "process"

    def __init__(self) -> None:
        self.evidence: str | None = None

    def launch(self, plan: Plan, stdout: int, stderr: int) -> Launched:
        try:
            if not plan.argv:
                raise StartFailed("command is empty: the process runtime has no image to take one from")
            self._link_inputs(plan)
            # The supervisor has one thread, and posix_spawn cannot change the child's directory alone.
            self._enter(plan)
            program = find_program(plan.argv[0], plan.env.get("PATH", DEFAULT_PATH))
            pid = spawn(program, plan.argv, plan.env, stdout, stderr, self.evidence)
        finally:
            os.chdir("/")
        return Launched(pid=pid, direct=True)

    def _enter(self, plan: Plan) -> None:
        workdir = plan.runtime_data.get("workdir")
        try:
            os.chdir(plan.directory)
            if isinstance(workdir, str) and workdir:
                os.chdir(workdir)
        except OSError as error:
            where = workdir or plan.directory
            raise StartFailed(f"workdir {where!r} cannot be entered: {error.strerror}") from error

    def _link_inputs(self, plan: Plan) -> None:
        for folder, target in plan.inputs:
            relative = PurePosixPath(target.lstrip("/"))
            if not relative.parts or ".." in relative.parts:
                raise StartFailed(f"inputs: {target!r} is not a path below the working directory")
            link = Path(plan.directory, relative)
            try:
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(folder)
            except OSError as error:
                raise StartFailed(f"inputs: {target!r} cannot be made: {error.strerror}") from error

    def confirm(self, plan: Plan, status: int) -> int:
        raise StartFailed("a process is started directly")

    def signal(self, plan: Plan, pid: int, number: int) -> None:
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return
        except PermissionError:
            if number != signal.SIGKILL:  # a set-uid program may still be told one by one
                return
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                return

    def measure(self, plan: Plan, executed: bool = True) -> Usage:
        return Usage()

    def written(self, plan: Plan) -> tuple[str, ...]:
        return plan.directory, plan.out

    def cleanup(self, plan: Plan) -> tuple[str, ...] | None:
        try:
            os.rmdir(plan.directory)  # most attempts leave nothing there
        except FileNotFoundError:
            return None
        except OSError:
            return ("rm", "-rf", "--one-file-system", "--", plan.directory)
        return None

    def cleaned(self, plan: Plan) -> None:
        return None


def probe() -> Probe:
    """It runs wherever a supervisor does."""
    return Probe(name="process", version=None, problem=None)
