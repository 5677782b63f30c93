"""What this machine offers to attempts, and what they use of it: CPUs, memory and pids, as the kernel
grants them to us.

A machine's total is not what counts inside of a container or under a service's limits, so every
cgroup from ours up to the root may lower it.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from msgspec import Struct

from towline.beside import Beside
from towline.core.agent.machine import AgentMachine
from towline.core.commands import AttemptUpdate, attempt_key
from towline.core.lease import PROTECTION
from towline.model.states import AttemptState
from towline.runtime.cgroups import cgroup_name, find_cgroups
from towline.runtime.counters import CgroupCounters, Counters, ProcessCounters, machine_load
from towline.runtime.port import Probe
from towline.wire.usage import AttemptUsage, ReadUsage, UsageAnswer

RESERVE_BYTES = 512 * 1024**2
"""Left to the machine and to Towline itself; a tenth of the memory where that is less."""

_UNLIMITED_BYTES = 2**60  # version 1 writes its "no limit" as a huge number


class Capacity(Struct, frozen=True, kw_only=True):
    cpu_milli: int
    memory_bytes: int
    pids: int
    disk_bytes: int = 0
    """For what attempts write; 0: not limited."""


def measure(root: Path = Path("/")) -> Capacity:
    """``root`` is the file system to read /proc and /sys from. Raises OSError without a /proc."""
    groups = list(_own_cgroups(root))
    memory = min([_total_memory_bytes(root), *_numbers(groups, "memory.max", "memory.limit_in_bytes")])
    cpu_milli = min([len(os.sched_getaffinity(0)) * 1000, *_cpu_quotas_milli(groups)])
    return Capacity(
        cpu_milli=max(1, cpu_milli),
        memory_bytes=memory - min(RESERVE_BYTES, memory // 10),
        pids=min([_all_pids(root), *_numbers(groups, "pids.max")]) * 9 // 10,
    )


def free_disk_bytes(folder: Path) -> int:
    """What is free now where the node keeps what attempts write, a tenth of the whole left to others."""
    there = os.statvfs(folder)
    return max(1, (there.f_bavail - there.f_blocks // 10) * there.f_frsize)


def protections(probes: list[Probe], leased: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    """What each runtime that works here protects; ``leased`` are those that end with the node lease."""
    return {
        probe.name: (*probe.protects, PROTECTION) if probe.name in leased else probe.protects
        for probe in probes
        if probe.problem is None
    }


def runtimes(probes: list[Probe]) -> dict[str, str | None]:
    """Each runtime's name, and why it cannot run here (None: it can)."""
    return {probe.name: probe.problem for probe in probes}


class NodeUsage:
    """Answers what the node's attempts use now; reads nothing until it is asked."""

    def __init__(self, node_dir: Path, machine: AgentMachine) -> None:
        self._node_dir = os.path.abspath(node_dir)  # as supervisors have it
        self._machine = machine
        self._reading = threading.Lock()
        self._answers = Beside()
        self._processes = ProcessCounters(f"{self._node_dir}/artifacts")
        try:
            self._cgroups: CgroupCounters | None = CgroupCounters(find_cgroups())
        except OSError:
            self._cgroups = None

    def answer(self, order: ReadUsage, say: Callable[[UsageAnswer], None]) -> None:
        """Beside everything else: a thousand attempts take some 30 ms."""
        running = [u for u in self._machine.known() if u.state == AttemptState.RUNNING and _asked(order, u)]
        self._answers.start(self._answer(order, running, say))

    async def _answer(
        self, order: ReadUsage, running: list[AttemptUpdate], say: Callable[[UsageAnswer], None]
    ) -> None:
        try:
            say(await asyncio.to_thread(self.read, order, running))
        except OSError as error:
            say(UsageAnswer(request=order.request, clock_us=0, error=f"it cannot be read: {error}"))

    def read(self, order: ReadUsage, running: list[AttemptUpdate]) -> UsageAnswer:
        """Raises OSError."""
        with self._reading:
            load = machine_load()
            clock_us, now_ms = time.monotonic_ns() // 1000, time.time_ns() // 1_000_000
            found = [self._of_cgroup(update.attempt) for update in running]
            others = self._processes.read() if None in found else {}
            return UsageAnswer(
                request=order.request,
                clock_us=clock_us,
                cpus=load.cpus,
                busy_us=load.busy_us,
                load1=load.load1,
                memory_bytes=load.memory_bytes,
                memory_used_bytes=load.memory_used_bytes,
                attempts=tuple(
                    self._usage(update, counters or others.get(_out(update.attempt), _NOTHING), now_ms)
                    for update, counters in zip(running, found, strict=True)
                ),
            )

    def _of_cgroup(self, attempt: str) -> Counters | None:
        return None if self._cgroups is None else self._cgroups.read(cgroup_name(attempt, self._node_dir))

    def _usage(self, update: AttemptUpdate, counters: Counters, now_ms: int) -> AttemptUsage:
        began_ms = update.started_at
        return AttemptUsage(
            update.attempt,
            None if began_ms is None else max(0, now_ms - began_ms),
            *counters,
            self._printed_bytes(update.attempt),
        )

    def _printed_bytes(self, attempt: str) -> int:
        size = 0
        for stream in ("stdout", "stderr"):
            try:
                size += os.stat(f"{self._node_dir}/output/{attempt}/{stream}").st_size
            except OSError:
                continue
        return size


_NOTHING = Counters(None, None, None, None)


def _asked(order: ReadUsage, update: AttemptUpdate) -> bool:
    if not order.job:
        return True
    job, task, index, _ = attempt_key(update.attempt)
    return job == order.job and order.task in (-1, task) and order.index in (-1, index)


def _out(attempt: str) -> str:
    """The end of its TOW_OUT; see ``agent.artifacts``."""
    job, task, index, number = attempt_key(attempt)
    return f"{job}/{task}.attempts/{index}.{number}"


def _total_memory_bytes(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return int(value.split()[0]) * 1024
    raise OSError("/proc/meminfo has no MemTotal")


def _all_pids(root: Path) -> int:
    names = ("proc/sys/kernel/pid_max", "proc/sys/kernel/threads-max")
    return min(int((root / name).read_text()) for name in names)


def _own_cgroups(root: Path) -> Iterator[Path]:
    """Our cgroup of each hierarchy and all above it, as far as they can be seen from here."""
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        mounts = [root / "sys/fs/cgroup" / controllers] if controllers else _unified(root)
        for mount in mounts:
            group = mount / path.lstrip("/")
            while True:
                if group.is_dir():
                    yield group
                if group == mount or mount not in group.parents:
                    break
                group = group.parent


def _unified(root: Path) -> list[Path]:
    return [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None


def _numbers(groups: list[Path], *names: str) -> Iterator[int]:
    for group in groups:
        for name in names:
            text = _read(group / name)
            if text is not None and text.isdecimal() and 0 < int(text) < _UNLIMITED_BYTES:
                yield int(text)


def _cpu_quotas_milli(groups: list[Path]) -> Iterator[int]:
    for group in groups:
        fields = (_read(group / "cpu.max") or "").split()
        if len(fields) != 2:
            fields = [_read(group / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
        if all(field.isdecimal() for field in fields) and int(fields[1]) > 0:
            yield int(fields[0]) * 1000 // int(fields[1])
