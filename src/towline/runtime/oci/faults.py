"""What an engine says when a container does not start, in words for the one who wrote the job file."""

from __future__ import annotations

import os
import posixpath
import signal
from pathlib import Path

from towline.model.states import Reason
from towline.runtime.oci.engine import Engine
from towline.runtime.paths import is_folder_in_root, read_in_root
from towline.runtime.port import Plan, StartFailed

_MAX_SCRIPT_BYTES = 64 * 1024
_NO_SPACE = os.strerror(28).lower()
_NEVER_EXECUTED = 0x40  # PF_FORKNOEXEC: a fork that has not become another program
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_FAILED = 1 << 8  # the wait status of an engine's own exit after an execve(2) in vain
_ABSENT = ("not found in $path", "no such file or directory")
_NOT_ALLOWED = ("open executable", "permission denied", "is a directory")
_TOO_LITTLE = (
    "memory limit could be too low",
    "memory limit too low",
    "cannot allocate memory",
    "oom-killed",
    "to set memory",
)


def has_failed_to_execute(pid: int, engine: Engine) -> bool:
    """Whether a container's first process, our unreaped child, ended as the engine's and never became the
    program: the engine tells of success just before it executes that."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    name_ends = stat.rindex(b")")
    name = stat[stat.index(b"(") + 1 : name_ends]
    fields = stat[name_ends + 2 :].split()
    if fields[0] != b"Z" or int(fields[1]) != os.getpid() or int(fields[-1]) != _FAILED:
        return False
    # runc's is a program of its own already, of which only the name tells.
    is_engine = bool(engine.child) and name.startswith(engine.child)
    return is_engine or bool(int(fields[6]) & _NEVER_EXECUTED)


def not_executed(plan: Plan, root: str, workdir: str) -> StartFailed:
    """Why the kernel did not execute the program, which is there. ``root`` is the mounted one."""
    program = plan.argv[0]
    head = _script(program, plan.env.get("PATH", ""), root, workdir)
    if head is None:
        why = (
            "it may be for another machine, need a loader that is not in the image, or have too long "
            "arguments. Its stderr has the kernel's reason."
        )
    elif head.startswith(b"#!"):
        interpreter = head[2:].split(b"\n")[0].strip().decode(errors="replace")[:200]
        why = f"its first line asks for {interpreter!r}: add that to the image, or correct the line."
    else:
        why = "it is no program for this machine; a script needs a first line such as #!/bin/sh."
    return StartFailed(f"{program!r} in the image cannot be executed: {why}")


def _script(program: str, path: str, root: str, workdir: str) -> bytes | None:
    """The content of the program if it is small, as scripts are."""
    found = (read_in_root(root, place, _MAX_SCRIPT_BYTES) for place in _places(program, path, workdir))
    return next((content for content in found if content is not None), None)


def _places(program: str, path: str, workdir: str) -> list[str]:
    folders = [workdir] if "/" in program else path.split(":")
    return [posixpath.join(folder, program) for folder in folders]


def is_absent(said: str) -> bool:
    """Whether an engine says that there is no such program."""
    low = said.lower()
    return not low.startswith(("chdir", "mkdir ")) and any(text in low for text in _ABSENT)


def start_failure(plan: Plan, engine: Engine, root: str, status: int, workdir: str) -> StartFailed:
    """Why the engine, which ended with this wait status, did not start the attempt. ``root`` is mounted."""
    said = engine.last_words(plan.directory)
    if not said and (status == 0 or os.WTERMSIG(status) in _FROM_OUTSIDE):
        how = f"was killed by signal {os.WTERMSIG(status)}" if status else "ended unseen"
        message = f"{engine.name} {how} while it started the container."
        return StartFailed(message, Reason.SUPERVISION_LOST.value)
    if not said and os.WIFSIGNALED(status):
        said = f"it was killed by signal {os.WTERMSIG(status)}"
    said = said or "it said nothing"
    return (
        _of_workdir(said, workdir)
        or _of_program(said, plan, root, workdir)
        or _of_room(said, plan)
        or StartFailed(f"The container could not be started. {engine.name} says: {said[-500:]}")
    )


def _of_workdir(said: str, workdir: str) -> StartFailed | None:
    """crun: "chdir: Not a directory"; runc: "chdir to cwd ("/x") …: not a directory", "mkdir /x: …"."""
    if not said.startswith(("chdir", "mkdir ")):
        return None
    why = said.rpartition(": ")[2]
    return StartFailed(f"workdir {workdir!r} cannot be entered in the image: {why}.")


def _of_program(said: str, plan: Plan, root: str, workdir: str) -> StartFailed | None:
    """crun: "executable file `x` not found in $PATH", "open executable: …"; runc: "exec: "x": …"."""
    low = said.lower()
    if not low.startswith(("executable file", "open executable", "exec: ")):
        return None
    program = plan.argv[0]
    path = plan.env.get("PATH", "")
    if any(text in low for text in _ABSENT):
        return StartFailed(_not_found(program, path))
    if any(is_folder_in_root(root, place) for place in _places(program, path, workdir)):
        return StartFailed(f"{program!r} in the image is no program, it is a folder: correct command.")
    if any(text in low for text in _NOT_ALLOWED):
        return StartFailed(
            f"{program!r} in the image is not executable: chmod +x it in the image, or name its interpreter "
            f"first in command."
        )
    return None


def _of_room(said: str, plan: Plan) -> StartFailed | None:
    low = said.lower()
    if any(text in low for text in _TOO_LITTLE):
        return StartFailed(
            f"resources.memory ({plan.memory_bytes} bytes) is too little to start anything: ask for more.",
            Reason.OOM_KILLED.value,
        )
    if _NO_SPACE in low:
        return StartFailed(f"There is no space left on this node's disk ({said}).", Reason.DISK_FULL.value)
    return None


def _not_found(program: str, path: str) -> str:
    if "/" in program:
        return f"There is no file {program!r} in the image: correct command, or add it to the image."
    return (
        f"There is no program {program!r} in the image (PATH is {path}): correct command, or install it "
        f"in the image."
    )
