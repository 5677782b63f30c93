"""Ends what a test run has started, however the run ends: by itself, by Ctrl-C or by SIGKILL.

    guard.watch(folder)      # a new folder of ours, whose path is in the arguments of what is started for it
    guard.end(folder)        # kill that, unmount what is mounted below it, and remove it

A process of its own holds the other end of a pipe: when the run has gone, it ends every folder that the
run has not ended itself. Only processes that name such a folder are killed, and their descendants.

python -m tests.guard      (folders on stdin, a line each: ``+PATH``, ``-PATH``)
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

from towline.cli.dev.network import NETWORK, remove_network
from towline.cli.dev.remains import remove_cgroups_named, unmount_below
from towline.runtime.cgroups import cgroup_name

ROOT = Path(__file__).parents[1]
_PATIENCE_S = 20.0
_LOOK_S = 0.02
_NAMED_IN = (b"TOW_OUT=", b"TOWLINE_HOME=")


@cache
def _guard() -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "tests.guard"]
    started = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True)
    atexit.register(started.communicate)
    return started


def watch(folder: str | Path) -> None:
    """From now on the folder goes with this process, with all that runs for it."""
    _tell("+", folder)


def end(folder: str | Path) -> list[int]:
    """End it now. Returns the processes that had to be killed."""
    killed = _end(os.fspath(folder))
    _tell("-", folder)
    return killed


def forget(folder: str | Path) -> None:
    """It has been ended in a better way."""
    _tell("-", folder)


def _tell(sign: str, folder: str | Path) -> None:
    pipe = _guard().stdin
    assert pipe is not None
    pipe.write(f"{sign}{os.fspath(folder)}\n".encode())
    pipe.flush()


def _end(folder: str) -> list[int]:
    killed: list[int] = []
    deadline = time.monotonic() + _PATIENCE_S
    while (found := _processes_of(folder)) and time.monotonic() < deadline:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed += [pid for pid in found if pid not in killed]
        time.sleep(_LOOK_S)
    unmount_below(folder)
    _remove_cgroups(folder)
    remove_network(Path(folder, NETWORK))
    shutil.rmtree(folder, ignore_errors=True)
    return killed


def _processes_of(folder: str) -> list[int]:
    """Those that live and name the folder in their arguments or as their home, and all below them."""
    word = os.fsencode(folder)
    children: dict[int, list[int]] = {}
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        with contextlib.suppress(OSError, ValueError):
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
            if state == "Z" or pid == os.getpid():
                continue
            children.setdefault(int(parent), []).append(pid)
            environ = (path / "environ").read_bytes()
            if word in (path / "cmdline").read_bytes() or any(name + word in environ for name in _NAMED_IN):
                found.append(pid)
    for pid in found:  # grows as it goes
        found += [child for child in children.get(pid, []) if child not in found]
    return found


def _remove_cgroups(folder: str) -> None:
    """Those of containers whose engine was killed, whose names are in its data, and of a node's attempts."""
    containers = [*Path(folder, "data").glob("containers/*/"), *Path(folder, "data").glob("*-containers/*/")]
    names = tuple(path.name for path in containers)
    remove_cgroups_named(cgroup_name("", folder), *names)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: dict[str, None] = {}
    for line in sys.stdin:
        sign, folder = line[0], line[1:].rstrip("\n")
        if sign == "+":
            watched[folder] = None
        else:
            watched.pop(folder, None)
    for folder in watched:
        _end(folder)


if __name__ == "__main__":
    main()
