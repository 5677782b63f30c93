"""Spawns processes for runtimes: fast (vfork), with a clean slate, and with evidence.

Between the spawn and the note of its pid a supervisor may be killed. So that the next one knows
whether there was a child at all, the child's first act is to empty the ``evidence`` file.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Sequence

from towline.runtime.port import StartFailed

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)

_found: dict[tuple[str, str], str] = {}


def find_program(name: str, path: str) -> str:
    """Where ``name`` is on ``path``; a name with a slash is taken as it is. Raises StartFailed."""
    if "/" in name:
        return name
    known = _found.get((name, path))
    if known is not None and os.access(known, os.X_OK):
        return known
    unfit = None
    for folder in path.split(":"):
        candidate = f"{folder or '.'}/{name}"
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK):
                if folder.startswith("/"):
                    _found[name, path] = candidate
                return candidate
            unfit = candidate
    if unfit is not None:
        raise StartFailed(f"command {name!r} is not executable: {unfit} (chmod +x it)")
    raise StartFailed(f"command {name!r} was not found; PATH is {path} (install it, or give its whole path)")


def null_device(directory: str) -> int:
    """A descriptor like that of /dev/null, but of a device node of its own, made in ``directory`` and gone
    already. crun gives what it has as input to the container's user, who could close the machine's own
    /dev/null to all others then. Where no node can be made, it is the machine's. Raises OSError."""
    path = f"{directory}/null"
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        finally:
            os.unlink(path)
    except OSError:
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def spawn(
    program: str,
    argv: Sequence[str],
    env: dict[str, str],
    stdout: int,
    stderr: int,
    evidence: str | None = None,
    session: bool = True,
    stdin: int | None = None,
) -> int:
    """The pid. Its input is empty where no ``stdin`` is given. It has no signal blocked or ignored. Raises
    StartFailed."""
    actions: list[tuple[object, ...]] = []
    if evidence is not None:
        actions.append((os.POSIX_SPAWN_OPEN, 0, evidence, os.O_WRONLY | os.O_TRUNC, 0))
    if stdin is None:
        actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
    else:
        actions.append((os.POSIX_SPAWN_DUP2, stdin, 0))
    actions.append((os.POSIX_SPAWN_DUP2, stdout, 1))
    actions.append((os.POSIX_SPAWN_DUP2, stderr, 2))
    try:
        return os.posix_spawn(
            program,
            argv,
            env,
            file_actions=actions,
            setsid=session,
            setsigmask=(),
            setsigdef=_IGNORED_BY_PYTHON,
        )
    except (OSError, ValueError) as error:
        raise StartFailed(why_not(program, error)) from error


def why_not(program: str, error: OSError | ValueError) -> str:
    """Why the kernel does not execute it, with what to do."""
    if isinstance(error, ValueError):
        return f"command {program!r} cannot be started: {error}"
    if error.errno == errno.ENOENT:
        if os.path.exists(program):
            return f"{program} names an interpreter in its first line (#!), or a loader, that is not there"
        return f"command {program!r} was not found (install it, or correct command)"
    if error.errno == errno.EACCES:
        if os.path.isdir(program):
            return f"{program} is a directory, not a program"
        return f"{program} is not executable (chmod +x it, or see whether its file system is mounted noexec)"
    if error.errno == errno.ENOEXEC:
        return f"{program} is no program for this machine: a script needs a first line such as #!/bin/sh"
    if error.errno == errno.E2BIG:
        return "command and env are too long for the kernel: put the data in a file"
    return f"{program} cannot be started: {os.strerror(error.errno or 0)}"
