"""A process that gets ready for a container in its user's namespace, and becomes the engine.

It is forked, not spawned: what it does between is our own code, and an interpreter of its own would take
ten times as long. Where it fails, it says so in the file ``refused`` of the attempt's directory.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec

from towline.runtime.port import StartFailed

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_REFUSED = "refused"
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def start(
    enter: Callable[[], None],
    get_ready: Callable[[], None],
    directory: str,
    program: str,
    argv: tuple[str, ...],
    env: dict[str, str],
    output: tuple[int, int],
    evidence: str | None,
) -> int:
    """The pid. ``enter`` leads into the namespace, ``get_ready`` mounts. For a process with one thread only.
    ``evidence``: see ``spawning``. Raises OSError."""
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            _take_its_place(evidence, output)
            enter()
            _end_with(parent)  # not before: to gain rights ends what was asked for earlier
            get_ready()
            _libc.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)
            os.execve(program, argv, env)
        except BaseException as error:
            _refuse(directory, error)
        finally:
            os._exit(125)
    return child


def _take_its_place(evidence: str | None, output: tuple[int, int]) -> None:
    if evidence is not None:
        os.close(os.open(evidence, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC))
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)
    os.dup2(output[0], 1)
    os.dup2(output[1], 2)


def _end_with(parent: int) -> None:
    """Until it is the engine it cannot be told from its parent, so that nobody would find it later."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(125)


def _refuse(directory: str, error: BaseException) -> None:
    reason = "start_failed"
    if isinstance(error, StartFailed):
        reason, message = error.reason, str(error)
    elif isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        message = f"The container's folders cannot be made: {error.strerror}{where}."
    else:
        message = f"Towline met an error of its own: {error!r}"
    Path(directory, _REFUSED).write_bytes(msgspec.json.encode((message, reason)))


def refusal(directory: str) -> StartFailed | None:
    """What the starter said of an attempt; None where it said nothing."""
    try:
        message, reason = msgspec.json.decode(Path(directory, _REFUSED).read_bytes(), type=tuple[str, str])
    except (OSError, msgspec.MsgspecError):
        return None
    return StartFailed(message, reason)


def forget_refusal(directory: str) -> None:
    Path(directory, _REFUSED).unlink(missing_ok=True)
