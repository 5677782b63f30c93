"""The cgroup of an attempt: what the kernel counted in it, and taking it away. Version 1, 2 and hybrid.

Every attempt's cgroup is ``/towline/ATTEMPT.NODE`` from the root of each hierarchy; NODE tells apart the
node directories of one machine. On a hybrid machine the controllers are those of version 1, so it is
read as such. The OCI runtime makes the cgroups.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import NamedTuple

from towline.runtime.port import Usage

PARENT = "/towline"
_ROOT = Path("/sys/fs/cgroup")
_NEEDED = ("cpu", "memory", "pids")


def cgroup_name(attempt: str, node_dir: str) -> str:
    """The name of an attempt's cgroup below ``/towline``."""
    return f"{attempt}.{zlib.crc32(os.fsencode(node_dir)):08x}"


class Cgroups(NamedTuple):
    """The hierarchies of this machine. ``mounts`` gives each its folder by controller (by name for
    those without); of version 2 there is one, under ``""``. ``limits_swap``: swap can be limited.
    The methods take what ``cgroup_name`` gives."""

    version: int
    mounts: dict[str, str]
    limits_swap: bool

    def missing(self) -> list[str]:
        """The controllers that a container's limits need and this machine does not give."""
        if self.version == 1:
            return [name for name in _NEEDED if name not in self.mounts]
        have = (_read(f"{self.mounts['']}/cgroup.controllers") or "").split()
        return [name for name in _NEEDED if name not in have]

    def folders(self, name: str) -> list[str]:
        """Where the attempt's cgroup lies in each hierarchy."""
        return [f"{mount}{PARENT}/{name}" for mount in dict.fromkeys(self.mounts.values())]

    def usage(self, name: str) -> Usage:
        """What the attempt has used; unknown where the kernel does not count it."""
        return self._usage_v1(name) if self.version == 1 else self._usage_v2(name)

    def _usage_v1(self, name: str) -> Usage:
        memory = f"{self.mounts.get('memory', '')}{PARENT}/{name}"
        cpu = f"{self.mounts.get('cpuacct', '')}{PARENT}/{name}"
        return Usage(
            peak_memory_bytes=_number(f"{memory}/memory.max_usage_in_bytes"),
            cpu_ms=_scaled(_number(f"{cpu}/cpuacct.usage"), 1_000_000),
            oom_killed=_field(f"{memory}/memory.oom_control", "oom_kill") not in (None, 0),
        )

    def _usage_v2(self, name: str) -> Usage:
        folder = f"{self.mounts['']}{PARENT}/{name}"
        return Usage(
            peak_memory_bytes=_number(f"{folder}/memory.peak"),  # since Linux 5.19
            cpu_ms=_scaled(_field(f"{folder}/cpu.stat", "usage_usec"), 1_000),
            oom_killed=_field(f"{folder}/memory.events", "oom_kill") not in (None, 0),
        )

    def limits(self, name: str) -> dict[str, int]:
        """The attempt's limits that are set: ``memory`` in bytes, ``cpu`` in milli-CPUs, ``pids``."""
        memory, cpu, pids = (self._folder(kind, name) for kind in ("memory", "cpu", "pids"))
        first = self.version == 1
        quota = (_read(f"{cpu}/cpu.max") or "").split()
        if first:
            quota = [_read(f"{cpu}/cpu.cfs_{part}_us") or "" for part in ("quota", "period")]
        numbers = [int(text) for text in quota if text.strip().isdecimal()]
        found = {
            "memory": _number(f"{memory}/memory.limit_in_bytes" if first else f"{memory}/memory.max"),
            "cpu": numbers[0] * 1000 // numbers[1] if len(numbers) == 2 else None,
            "pids": _number(f"{pids}/pids.max"),
        }
        return {kind: limit for kind, limit in found.items() if limit is not None}

    def _folder(self, controller: str, name: str) -> str:
        mount = self.mounts.get("" if self.version == 2 else controller, "")
        return f"{mount}{PARENT}/{name}"

    def processes(self, name: str) -> list[int] | None:
        """The pids in the attempt's cgroup; None where it has none (any more)."""
        for kind in ("memory", "pids", ""):
            if kind in self.mounts:
                text = _read(f"{self.mounts[kind]}{PARENT}/{name}/cgroup.procs")
                return None if text is None else [int(pid) for pid in text.split()]
        return None

    def remove(self, name: str) -> bool:
        """Remove the attempt's empty cgroup from every hierarchy; False where processes are in it yet."""
        gone = True
        for folder in self.folders(name):
            try:
                Path(folder).rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone

    def make_parent(self) -> None:
        """Make ``/towline`` in every hierarchy. Raises OSError where that is not allowed."""
        for mount in dict.fromkeys(self.mounts.values()):
            Path(f"{mount}{PARENT}").mkdir(exist_ok=True)


def find_cgroups(root: Path = _ROOT, mountinfo: str | None = None) -> Cgroups:
    """The hierarchies mounted here. Raises OSError where there are none."""
    if (root / "cgroup.controllers").exists():
        return Cgroups(2, {"": str(root)}, limits_swap=Path("/proc/swaps").exists())
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    mounts = _mounts_v1(text)
    if not mounts:
        raise OSError(f"no cgroup hierarchy is mounted under {root}")
    swap = "memory" in mounts and Path(mounts["memory"], "memory.memsw.limit_in_bytes").exists()
    return Cgroups(1, mounts, limits_swap=swap)


def _mounts_v1(mountinfo: str) -> dict[str, str]:
    """Controller (or ``name=systemd``) to folder, of the hierarchies whose own root is mounted."""
    mounts: dict[str, str] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.partition(" ")
        if kind != "cgroup":
            continue
        fields = before.split()
        for option in options.split()[-1].split(","):
            if option not in ("rw", "ro", "xattr", "clone_children") and "=/" not in option:
                mounts.setdefault(option, fields[4])
    return mounts


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text()
    except OSError:
        return None


def _number(path: str) -> int | None:
    text = (_read(path) or "").strip()
    return int(text) if text.isdecimal() else None


def _scaled(count: int | None, divisor: int) -> int | None:
    return None if count is None else count // divisor


def _field(path: str, name: str) -> int | None:
    """The number after ``name`` in a file of ``name number`` lines."""
    for line in (_read(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return None
