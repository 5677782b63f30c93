"""What the standard library does not give of Linux: subreapers, exits with their usage, pidfd records."""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import struct
import time
from pathlib import Path
from typing import NamedTuple

from towline.errors import NO_ROOM
from towline.runtime.linux.spaces import become_subreaper, enter_mounts_without, hybrid_mount

__all__ = [
    "Exit", "Process", "become_subreaper", "boot_id", "boottime_ms", "children", "enter_mounts_without",
    "environment", "exit_record", "has_executed", "has_exited", "hybrid_mount", "monotonic_ms", "next_exit",
    "process", "processes", "reap", "take_room", "wall_and_monotonic_ms",
    "wall_ms",
]  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)
_SYS_WAITID = {"x86_64": 247, "aarch64": 95, "riscv64": 95}.get(platform.machine())
_PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info), its first version: 64 bytes
_PIDFD_INFO_EXIT = 1 << 3
_TICK_MS = 1000 // os.sysconf("SC_CLK_TCK")
TICKS_MS = 20
"""Two clocks that tell of one start may differ by so much."""
_CLD_EXITED = 1
_PF_FORKNOEXEC = 0x40
_RUNC = "runc:["  # what runc calls its process that is to become a container's first

_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_KEEP_SIZE = 1

_siginfo = ctypes.create_string_buffer(128)
_rusage = ctypes.create_string_buffer(144)
_SIGINFO = struct.Struct("@iiiiiii")
_RUSAGE = struct.Struct("@lllll")


class Exit(NamedTuple):
    """How a process ended. ``status`` is a wait status; ``cpu_ms`` and ``peak_kib`` (resident) count
    its waited-for children too, and are None where the kernel did not tell. ``executed``: see Stray."""

    pid: int
    status: int
    cpu_ms: int | None = None
    peak_kib: int | None = None
    executed: bool = True


class Process(NamedTuple):
    """A line of /proc/PID/stat. ``start_ms`` is CLOCK_BOOTTIME, in steps of 10 ms."""

    state: str
    parent: int
    session: int
    start_ms: int


def next_exit() -> Exit | None:
    """A child that has ended, left unreaped: the same one is given until ``reap``. None: no such."""
    if _SYS_WAITID is None:
        return _next_exit_portable()
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    ctypes.memset(_siginfo, 0, 128)
    result = _libc.syscall(_SYS_WAITID, os.P_ALL, 0, _siginfo, options, _rusage)
    if result != 0:
        return None  # ECHILD: no children at all
    _, _, code, _, pid, _, value = _SIGINFO.unpack_from(_siginfo)
    if pid == 0:
        return None
    user_s, user_us, system_s, system_us, peak_kib = _RUSAGE.unpack_from(_rusage)
    cpu_ms = (user_s + system_s) * 1000 + (user_us + system_us) // 1000
    return Exit(pid, value << 8 if code == _CLD_EXITED else value, cpu_ms, peak_kib)


def _next_exit_portable() -> Exit | None:
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if found is None:
        return None
    return Exit(found.si_pid, found.si_status << 8 if found.si_code == _CLD_EXITED else found.si_status)


def has_exited(pid: int) -> bool:
    """Whether this child of ours has ended; it stays unreaped."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def has_executed(pid: int) -> bool:
    """Whether this unreaped child of ours has ever become another program than its parent's."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return True
    if stat[stat.index("(") + 1 :].startswith(_RUNC):
        return False
    return not int(stat[stat.rindex(")") + 2 :].split()[6]) & _PF_FORKNOEXEC


def reap(pid: int) -> None:
    """Take away a child that has ended."""
    os.waitpid(pid, 0)


def exit_record(pidfd: int) -> int | None:
    """The wait status that the kernel keeps behind a pidfd after the process was reaped by whoever was
    its parent (Linux 6.15); None where it does not, or not yet."""
    info = bytearray(64)
    struct.pack_into("=Q", info, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    if not struct.unpack_from("=Q", info)[0] & _PIDFD_INFO_EXIT:
        return None
    return struct.unpack_from("=i", info, 60)[0]


def process(pid: int) -> Process | None:
    """What /proc says of a process, a zombie too; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return Process(fields[0], int(fields[1]), int(fields[3]), int(fields[19]) * _TICK_MS)


def environment(pid: int) -> dict[str, str]:
    """The environment that a living process was started with; empty for others and for zombies."""
    try:
        data = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.partition("=") for item in os.fsdecode(data).split("\0"))
    return {name: value for name, _, value in pairs if name}


def children() -> list[int]:
    """The pids of this process's children, zombies too."""
    me = os.getpid()
    try:
        return [int(pid) for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split()]
    except OSError:
        found = ((pid, process(pid)) for pid in processes())
        return [pid for pid, stat in found if stat is not None and stat.parent == me]


def processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def boottime_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def wall_and_monotonic_ms() -> tuple[int, int]:
    """Now, by both clocks. The monotonic one is read first: what is counted from it is never too short."""
    since_ms = monotonic_ms()
    return wall_ms(), since_ms


def boot_id() -> str:
    """Names this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def take_room(file: int, offset: int, length: int) -> bool:
    """Have the filesystem keep room for ``length`` bytes from ``offset`` on, behind what the file
    holds, whose length stays. False where it has none. True too where it cannot do so at all: writing will
    tell."""
    return _libc.fallocate(file, _KEEP_SIZE, offset, length) == 0 or ctypes.get_errno() not in NO_ROOM
