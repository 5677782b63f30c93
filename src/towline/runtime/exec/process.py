"""Entering a plain process: a further one with its folder and environment. There is nothing else to join."""

from __future__ import annotations

import os

from towline.runtime.exec.marks import NAME
from towline.runtime.port import CannotExec, Entry, Plan, StartFailed, Wish
from towline.runtime.spawning import DEFAULT_PATH, find_program


class ProcessEntering:
    """See ``port.Enterable``."""

    def entry(self, plan: Plan, pid: int, wish: Wish, folder: str) -> Entry:
        return ProcessEntry(plan, wish)


class ProcessEntry:
    """See ``port.Entry``."""

    console: str | None = None
    is_command = True
    space_of = 0
    hidden: str | None = None

    def __init__(self, plan: Plan, wish: Wish) -> None:
        if wish.user is not None:
            raise CannotExec(
                "--user is not possible here: a task of the process runtime runs as the node's own user, and "
                "so does every command in it. Leave it out.",
                0,
            )
        self.argv = wish.argv
        self.env = {**plan.env, **wish.env, NAME: wish.mark}
        workdir = plan.runtime_data.get("workdir")
        own = workdir if isinstance(workdir, str) else ""
        self.directory = os.path.join(plan.directory, own, wish.workdir or "")
        try:
            self.program = find_program(wish.argv[0], self.env.get("PATH", DEFAULT_PATH))
        except StartFailed as error:
            raise CannotExec(f"{error}.", 126 if "not executable" in str(error) else 127) from None

    def why(self, status: int) -> CannotExec:
        return CannotExec(f"{self.program} ended with status {status} before it ran.")
