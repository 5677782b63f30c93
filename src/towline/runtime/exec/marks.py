"""What further commands have started, found by the TOW_EXEC in their environment, and killed.

The agent ends them when they are over or their client has gone; the supervisor when the agent has died;
the next agent when both had. A program that clears its environment is missed until the attempt ends.
"""

from __future__ import annotations

import os
import signal
import zlib
from contextlib import suppress
from pathlib import Path

NAME = "TOW_EXEC"
_PASSES = 100


def node_mark(node_dir: str) -> str:
    """How the marks of everything begin that one node has started."""
    return f"{zlib.crc32(os.fsencode(node_dir)):08x}."


def kill_marked(mark: str) -> int:
    """Kill every process whose mark begins so, and those that they start meanwhile. Returns how many.

    Blocks for some milliseconds for every thousand processes of the machine.
    """
    wanted = _entry(mark)
    killed = 0
    for _ in range(_PASSES):
        found = sum(_kill(pid, wanted) for pid in _processes() if _has(pid, wanted))
        killed += found
        if not found:
            break
    return killed


def is_marked(pid: int, mark: str) -> bool:
    """Whether a process of this machine has a mark that begins so."""
    return _has(pid, _entry(mark))


def _entry(mark: str) -> bytes:
    return f"{NAME}={mark}".encode()


def _processes() -> list[int]:
    own = os.getpid()
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) != own]


def _has(pid: int, wanted: bytes) -> bool:
    """A process that has ended has no environment any more, reaped or not."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return any(entry.startswith(wanted) for entry in environment.split(b"\0"))


def _kill(pid: int, wanted: bytes) -> bool:
    with suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            if _has(pid, wanted):  # the pidfd is held: it is that process still
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return True
        finally:
            os.close(pidfd)
    return False
