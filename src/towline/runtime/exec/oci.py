"""Entering a container: the engine's own ``exec``, told by a process.json that is the container's own.

Namespaces, cgroup and seccomp filter are those that the engine joins; rights, limits, user and environment
are copied from the config.json that the container was started by, so no command has more than it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from towline.runtime.exec.marks import NAME
from towline.runtime.linux.spaces import hybrid_mount
from towline.runtime.oci.engine import ENGINES, Engine
from towline.runtime.oci.faults import is_absent, start_failure
from towline.runtime.oci.spec import OciData, read_data
from towline.runtime.oci.users import User, find_user
from towline.runtime.port import CannotExec, Entry, Plan, StartFailed, Wish

CONSOLE = "console"


class OciEntering:
    """See ``port.Enterable``."""

    def __init__(self, node_dir: str) -> None:
        self._node_dir = node_dir

    def entry(self, plan: Plan, pid: int, wish: Wish, folder: str) -> Entry:
        try:
            data = read_data(plan)
            if data.rootless:
                raise CannotExec(
                    "This build enters no containers of an ordinary user: start tow as root (sudo), or have "
                    "the task do what you look for."
                )
            engine = ENGINES[data.engine]  # the container runs: this build knows it
            return OciEntry(plan, data, engine, f"{self._node_dir}/{engine.name}", pid, wish, folder)
        except StartFailed as error:
            raise CannotExec(str(error)) from error


class OciEntry:
    """See ``port.Entry``."""

    is_command = False
    space_of = 0
    hidden: str | None = None

    def __init__(
        self, plan: Plan, data: OciData, engine: Engine, state: str, pid: int, wish: Wish, folder: str
    ) -> None:
        """Raises CannotExec, StartFailed."""
        if data.ids is not None and os.geteuid() != 0:  # an ordinary user's container: see oci/rootless
            self.space_of = pid
            self.hidden = hybrid_mount() if engine.name == "crun" else None
            engine = engine.rootless()
        self._engine = engine
        self._root = f"/proc/{pid}/root"
        self.program = engine.program()
        self.console = CONSOLE if wish.terminal is not None and engine.sends_console else None
        self.argv = engine.exec_argv(state, plan.attempt, self.console)
        # The engine itself has the mark too: what it has begun to start is found by it.
        self.env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NAME: wish.mark}
        self.directory = folder
        process = self._process(plan, data, wish)
        Path(folder, "process.json").write_bytes(msgspec.json.encode(process))
        env = dict(entry.split("=", 1) for entry in process["env"])
        self._workdir: str = process["cwd"]
        self._plan = structs.replace(plan, argv=wish.argv, env=env, directory=folder)

    def _process(self, plan: Plan, data: OciData, wish: Wish) -> dict[str, Any]:
        try:
            config = msgspec.json.decode(Path(plan.directory, "config.json").read_bytes())
        except OSError as error:
            raise CannotExec(f"The container's config.json cannot be read: {error.strerror}.") from None
        process: dict[str, Any] = config["process"]
        env = dict(entry.split("=", 1) for entry in process["env"])
        if wish.user is not None:
            user = self._user(wish.user, data)
            process["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}
            if "HOME" not in plan.env:
                env["HOME"] = user.home or ("/root" if user.uid == 0 else "/")
        env |= {**wish.env, NAME: wish.mark}
        process["args"] = list(wish.argv)
        process["env"] = [f"{name}={value}" for name, value in env.items()]
        process["cwd"] = _joined(process["cwd"], wish.workdir)
        process["terminal"] = wish.terminal is not None
        if wish.terminal is not None:
            rows, columns = wish.terminal
            process["consoleSize"] = {"height": rows, "width": columns}
        return process

    def _user(self, text: str, data: OciData) -> User:
        try:
            user = find_user(text, self._root, "--user")
        except StartFailed as error:
            raise CannotExec(str(error), 0) from None
        highest = max(user.uid, user.gid, *user.groups)
        if data.ids is not None and highest >= data.ids.count:
            raise CannotExec(
                f"--user {text}: the container has the ids 0 to {data.ids.count - 1} only: use a lower one.",
                0,
            )
        return user

    def why(self, status: int) -> CannotExec:
        said = self._engine.last_words(self.directory)
        failure = start_failure(self._plan, self._engine, self._root, status << 8, self._workdir)
        return CannotExec(str(failure), 127 if is_absent(said) else 126)


def _joined(workdir: str, wanted: str | None) -> str:
    if wanted is None:
        return workdir
    return wanted if wanted.startswith("/") else f"{workdir.rstrip('/')}/{wanted}"
