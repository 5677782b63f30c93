"""What attempts use at the moment, by the kernel's counters. Nothing here is read unless somebody asks.

Attempts in containers have a cgroup. Those of the ``process`` runtime have none; theirs are the processes
whose environment has a TOW_OUT of this node, with all that is in their sessions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from towline.runtime.cgroups import PARENT, Cgroups

_TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_FILE_BYTES = 4096
_PROGRAM = (19, 23, 47)
"""Of a line of /proc/PID/stat: when it began, where its code and its environment begin."""
_TOW_OUT = b"TOW_OUT="


class Counters(NamedTuple):
    """None: not known. ``cpu_us`` rises from the start on; ``memory_bytes`` has what is cached of files,
    where a cgroup counts it; ``pids`` counts threads."""

    cpu_us: int | None
    memory_bytes: int | None
    peak_memory_bytes: int | None
    pids: int | None


class CgroupCounters:
    """Reads cgroups of ``runtime.cgroups``, four small files each: some 25 µs."""

    def __init__(self, cgroups: Cgroups) -> None:
        first = cgroups.version == 1
        mounts = cgroups.mounts

        def place(controller: str) -> str:
            return f"{mounts.get(controller if first else '', '/nonexistent')}{PARENT}/"

        self._cpu = place("cpuacct"), "/cpuacct.usage" if first else "/cpu.stat"
        self._memory = place("memory")
        self._now = "/memory.usage_in_bytes" if first else "/memory.current"
        self._peak = "/memory.max_usage_in_bytes" if first else "/memory.peak"
        self._pids = place("pids")
        self._cpu_us = _nanoseconds if first else _usage_usec

    def read(self, name: str) -> Counters | None:
        """None where it has no cgroup (any more)."""
        memory = _number(f"{self._memory}{name}{self._now}")
        cpu, file = self._cpu
        text = _read(f"{cpu}{name}{file}")
        if memory is None and text is None:
            return None
        return Counters(
            None if text is None else self._cpu_us(text),
            memory,
            _number(f"{self._memory}{name}{self._peak}"),
            _number(f"{self._pids}{name}/pids.current"),
        )


class ProcessCounters:
    """Reads /proc for attempts without a cgroup. ``artifacts``: the folder that their TOW_OUT is below."""

    def __init__(self, artifacts: str) -> None:
        self._artifacts = os.fsencode(artifacts) + b"/"
        self._known: dict[int, tuple[list[bytes], str | None]] = {}
        """Of sessions: what of the leader changes when it executes a program, and whose it is."""

    def read(self) -> dict[str, Counters]:
        """By the end of their TOW_OUT (``JOB/TASK.attempts/INDEX.NUMBER``) all that run now."""
        sums: dict[str, list[int]] = {}
        sessions: dict[int, tuple[list[bytes], str | None]] = {}
        processes = dict(_processes())
        for fields in processes.values():
            session = int(fields[3])
            if session not in sessions:
                leader = processes.get(session)
                sessions[session] = ([], None) if leader is None else self._owner(session, leader)
            owner = sessions[session][1]
            if owner is None:
                continue
            found = sums.setdefault(owner, [0, 0, 0])
            found[0] += sum(map(int, fields[11:15])) * _TICK_US
            found[1] += int(fields[21]) * _PAGE_BYTES
            found[2] += int(fields[17])
        self._known = sessions
        return {owner: Counters(cpu, memory, None, pids) for owner, (cpu, memory, pids) in sums.items()}

    def _owner(self, session: int, leader: list[bytes]) -> tuple[list[bytes], str | None]:
        """Asked once of each program: before it executes one, a child has its parent's environment."""
        program = [leader[at] for at in _PROGRAM]
        known = self._known.get(session)
        if known is not None and known[0] == program:
            return known
        with suppress(OSError), open(f"/proc/{session}/environ", "rb") as file:
            for item in file.read().split(b"\0"):
                if item.startswith(_TOW_OUT):
                    out = item.removeprefix(_TOW_OUT)
                    inside = out.startswith(self._artifacts)
                    return program, os.fsdecode(out.removeprefix(self._artifacts)) if inside else None
        return program, None


class MachineLoad(NamedTuple):
    """``busy_us``: CPU time of all CPUs that was not idle, since the start of the machine."""

    cpus: int
    busy_us: int
    load1: float
    memory_bytes: int
    memory_used_bytes: int


def machine_load() -> MachineLoad:
    """Raises OSError without a /proc."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    memory: dict[str, int] = {}
    with open("/proc/meminfo") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in ("MemTotal", "MemAvailable"):
                memory[name] = int(value.split()[0]) * 1024
    total = memory.get("MemTotal", 0)
    return MachineLoad(
        cpus=os.cpu_count() or 1,
        busy_us=(user + nice + system + irq + softirq + steal) * _TICK_US,
        load1=os.getloadavg()[0],
        memory_bytes=total,
        memory_used_bytes=total - memory.get("MemAvailable", total),
    )


def _processes() -> Iterator[tuple[int, list[bytes]]]:
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _read(f"/proc/{name}/stat")):
            yield int(name), _fields(stat)


def _fields(stat: bytes) -> list[bytes]:
    """Those after the name of the program: the state is the first."""
    return stat[stat.rindex(b")") + 2 :].split()


def _read(path: str) -> bytes | None:
    """A small file in one read: half the time of pathlib's."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, _FILE_BYTES)
    except OSError:
        return None
    finally:
        os.close(fd)


def _number(path: str) -> int | None:
    text = _read(path)
    return int(text) if text and text.rstrip().isdigit() else None


def _nanoseconds(text: bytes) -> int | None:
    text = text.rstrip()
    return int(text) // 1000 if text.isdigit() else None


def _usage_usec(text: bytes) -> int | None:
    name, _, rest = text.partition(b" ")
    value = rest.partition(b"\n")[0]
    return int(value) if name == b"usage_usec" and value.isdigit() else None
