"""The node lease as it stands in the node's folder, and who lives by it.

``lease`` holds what the agent was last granted; only the agent writes it. ``leased`` holds a small file for
each attempt that may live only with the lease, from before its start until nothing of it is left. From these
two alone keeper and supervisor know what to kill and when, each without the other. A file ``ATTEMPT.cut`` is
of one that the keeper has begun to kill: it has to die, whatever the lease does after that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from typing import NamedTuple
from zlib import crc32

from towline.agent.supervision import kernel
from towline.core.lease import NONE, Lease

LOOK_MS = 200
"""How often the lease is looked at where anything lives by it. A timer that counts a machine's sleep, as the
lease does, would wait no longer."""
LEASE, LEASED = "lease", "leased"
_RECORD = struct.Struct("<4s36sQQQQ")
_CRC = struct.Struct("<I")
_MARK = b"TWL1"
_HEAD = "{:10d} {:20d}\n"
_CUT = ".cut"
_TICKS_MS = 20


class LeaseFile:
    """``held`` is what was last read or written. What is of an earlier boot is none."""

    def __init__(self, node_dir: str) -> None:
        self._path = f"{node_dir}/{LEASE}"
        self._boot = kernel.boot_id().encode()
        self.held = NONE
        self.read()

    def read(self) -> Lease:
        """As the file says now, or as it did when it last could be read."""
        with contextlib.suppress(OSError), open(self._path, "rb") as file:
            data = file.read(_RECORD.size + _CRC.size)
            if len(data) == _RECORD.size + _CRC.size:
                mark, boot, *lease = _RECORD.unpack_from(data)
                sound = mark == _MARK and boot == self._boot
                if sound and _CRC.unpack_from(data, _RECORD.size)[0] == crc32(data[: _RECORD.size]):
                    self.held = Lease(*lease)
        return self.held

    def write(self, lease: Lease) -> None:
        """In place, so that a full disk takes no lease away. Raises OSError."""
        record = _RECORD.pack(_MARK, self._boot, *lease)
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(file, record + _CRC.pack(crc32(record)), 0)
        finally:
            os.close(file)
        self.held = lease


class Entry(NamedTuple):
    """``pid`` is its first process or its starter, which began at ``start_ms`` (CLOCK_BOOTTIME), 0: not
    known yet. ``cgroup`` is its cgroup's name, ``out`` the TOW_OUT that marks its processes; empty: none."""

    attempt: str
    cut: bool
    pid: int
    start_ms: int
    cgroup: str
    out: str


class LeasedFolder:
    """The entries. They are on record before what they tell of happens."""

    def __init__(self, node_dir: str) -> None:
        self._path = f"{node_dir}/{LEASED}"

    def enter(self, attempt: str, cgroup: str, out: str) -> None:
        """Raises OSError."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._path, 0o700)
        file = os.open(f"{self._path}/{attempt}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            data = os.fsencode(f"{_HEAD.format(0, 0)}{cgroup}\n{out}\n")
            if os.write(file, data) < len(data):
                raise OSError(28, os.strerror(28), self._path)
        finally:
            os.close(file)

    def runs(self, attempt: str, pid: int) -> None:
        """It has a process from now on, or another one."""
        process = kernel.process(pid)
        if process is None:
            return
        for suffix in ("", _CUT):
            with contextlib.suppress(OSError):
                file = os.open(f"{self._path}/{attempt}{suffix}", os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.pwrite(file, _HEAD.format(pid, process.start_ms).encode(), 0)
                finally:
                    os.close(file)

    def leave(self, attempt: str) -> None:
        """Nothing of it lives any more."""
        for suffix in ("", _CUT):
            with contextlib.suppress(OSError):
                os.unlink(f"{self._path}/{attempt}{suffix}")

    def is_cut(self, attempt: str) -> bool:
        return os.path.exists(f"{self._path}/{attempt}{_CUT}")

    def cut(self, attempt: str) -> None:
        """From now on it has to die. A rename needs no room on the disk."""
        with contextlib.suppress(OSError):
            os.rename(f"{self._path}/{attempt}", f"{self._path}/{attempt}{_CUT}")

    def names(self) -> dict[str, bool]:
        """All attempts, and whether each is cut."""
        try:
            found = os.listdir(self._path)
        except OSError:
            return {}
        return {name.removesuffix(_CUT): name.endswith(_CUT) for name in found}

    def read(self, attempt: str) -> Entry | None:
        """None where it has just left."""
        for suffix in ("", _CUT):
            with contextlib.suppress(OSError, ValueError):
                with open(f"{self._path}/{attempt}{suffix}", "rb") as file:
                    head, cgroup, out, *_ = os.fsdecode(file.read()).split("\n")
                pid, start_ms = map(int, head.split())
                return Entry(attempt, bool(suffix), pid, start_ms, cgroup, out)
        return None


def kill(entries: list[Entry]) -> None:
    """SIGKILL to every process of these attempts that can be found now: by its pid, its session, its cgroup
    or its mark. What is being started may come later: it is to be called again until they have left."""
    if not entries:
        return
    for pid in kernel.processes():
        if pid == os.getpid() or not _is_of(pid, entries):
            continue
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            try:
                if _is_of(pid, entries):  # the pidfd is held: it is that process still
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)


def _is_of(pid: int, entries: list[Entry]) -> bool:
    process = kernel.process(pid)
    if process is None or process.state == "Z":
        return False
    groups, environ = _read(pid, "cgroup"), b"\0" + _read(pid, "environ")
    for entry in entries:
        if entry.pid == pid and _is_same(process, entry):
            return True
        if entry.pid and entry.pid == process.session:
            leader = kernel.process(entry.pid)
            if leader is None or _is_same(leader, entry):
                return True
        if entry.cgroup and f"/{entry.cgroup}".encode() in groups:
            return True
        if entry.out and b"\0TOW_OUT=" + os.fsencode(entry.out) + b"\0" in environ:
            return True
    return False


def _is_same(process: kernel.Process, entry: Entry) -> bool:
    """Pids come again."""
    return abs(process.start_ms - entry.start_ms) <= _TICKS_MS


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""
