"""The two programs that set up containers, and in what they differ for us: crun and runc."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from towline.runtime.port import StartFailed
from towline.runtime.spawning import DEFAULT_PATH, find_program

_MAX_LOG_BYTES = 64 * 1024
_STAMP = re.compile(r"\A\d{4}-\d\d-\d\dT[0-9:.]+Z:? ")
_WHERE = re.compile(
    r"\A(runc run failed: |exec failed: )?(unable to start container process: )?"
    r"(error during container init: )?"
)


class Engine(NamedTuple):
    """``log_option`` takes the path of a file; ``read_log`` finds what it said in that; ``child`` begins
    the name of its process that becomes the container's first, as long as it has not. ``sends_console``: in
    the foreground too it can send a terminal that it has made inside, whose size can then be changed."""

    name: str
    options: tuple[str, ...]
    log_option: str
    read_log: Callable[[Sequence[str]], str]
    child: bytes
    sends_console: bool

    def program(self) -> str:
        """Where it is. Raises StartFailed."""
        try:
            return find_program(self.name, os.environ.get("PATH", DEFAULT_PATH))
        except StartFailed:
            raise StartFailed(
                f"{self.name}, which runs containers, is missing on this node: apt-get install {self.name}"
            ) from None

    def rootless(self) -> Engine:
        """As it is run by an ordinary user: crun has to be told that there are no cgroups."""
        none = tuple(option.replace("cgroupfs", "disabled") for option in self.options)
        return self._replace(options=none)

    def run_argv(self, state: str, attempt: str, directory: str) -> tuple[str, ...]:
        """Start in the background; the bundle is the attempt's directory."""
        return (
            self.name,
            "--root",
            state,
            *self.options,
            f"{self.log_option}{directory}/{LOG}",
            "run",
            "--detach",
            f"--pid-file={directory}/pid",
            f"--bundle={directory}",
            attempt,
        )

    def exec_argv(self, state: str, attempt: str, console: str | None) -> tuple[str, ...]:
        """Enter a container, in a directory that has process.json and gets ``pid`` and the log."""
        socket = () if console is None else (f"--console-socket={console}",)
        return (
            self.name,
            "--root",
            state,
            *self.options,
            f"{self.log_option}{LOG}",
            "exec",
            "--process=process.json",
            "--pid-file=pid",
            *socket,
            attempt,
        )

    def delete_argv(self, state: str, attempt: str) -> tuple[str, ...]:
        return (self.program(), "--root", state, *self.options, "delete", "--force", attempt)

    def last_words(self, directory: str) -> str:
        """What it said last in its log of this attempt; "" where it said nothing."""
        try:
            with Path(directory, LOG).open("rb") as file:
                text = file.read(_MAX_LOG_BYTES).decode(errors="replace")
        except OSError:
            return ""
        lines = [line for line in text.splitlines() if line.strip()]
        return self.read_log(lines) if lines else ""


LOG = "engine.log"


def _last_of_crun(lines: Sequence[str]) -> str:
    return _STAMP.sub("", lines[-1]).strip()


def _last_of_runc(lines: Sequence[str]) -> str:
    """Its errors say first where in itself they arose, then what happened."""
    for line in reversed(lines):
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and said.get("level") in ("error", "fatal"):
            return _WHERE.sub("", str(said.get("msg", ""))).strip()
    return lines[-1].strip()


ENGINES: dict[str, Engine] = {
    "crun": Engine("crun", ("--cgroup-manager=cgroupfs",), "--log=file:", _last_of_crun, b"", True),
    "runc": Engine("runc", ("--log-format=json",), "--log=", _last_of_runc, b"runc:[", False),
}
"""In the order of preference."""
