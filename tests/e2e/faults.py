"""What can go wrong with a fleet's machines beside a cut link: flapping, clocks, disks, reboots."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.fleet import Machine

if TYPE_CHECKING:
    from tests.e2e.several import Server

BOOT_ID = "/proc/sys/kernel/random/boot_id"
FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
ROOTS = Path("/run/towline-roots")
_PIECE = bytes(64 * 1024)


@contextmanager
def flapping(machine: Machine, chance: random.Random, longest_s: float) -> Iterator[None]:
    """Its link is cut and healed again and again, one way or both, for up to ``longest_s`` each time."""
    over = threading.Event()

    def flap() -> None:
        while not over.wait(chance.uniform(0.1, longest_s)):
            machine.cut_off(chance.choice(("in", "out", "both")))
            over.wait(chance.uniform(0.1, longest_s))
            machine.heal()

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        machine.heal()


class Clock:
    """The wall clock of a machine's processes from its next start on; the others of its clocks are real."""

    def __init__(self, machine: Machine | Server) -> None:
        self._file = machine.home.with_suffix(".clock")
        self.jump(0)
        assert FAKETIME is not None, "libfaketime is missing: make setup"
        machine.environ |= {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_CACHE_DURATION": "1",
            "NO_FAKE_STAT": "1",
        }

    def jump(self, by_s: int) -> None:
        """To so much from the real time."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{by_s:+d}")
        fresh.replace(self._file)


class Disk:
    """A small disk of its own, mounted at a folder."""

    def __init__(self, folder: Path, mib: int) -> None:
        self._ballast = folder / "ballast"
        folder.mkdir(mode=0o700, exist_ok=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"mode=0700,size={mib}m", "tmpfs", str(folder)], check=True
        )

    def fill(self) -> None:
        """Leave not a single byte."""
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(_PIECE)
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x")

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)


def power_off(machine: Machine) -> None:
    """All its processes end at once, and what is in memory only is gone."""
    mine = [path.name for path in (machine.home / "node" / "attempts").glob("*")]
    machine.die()
    for name in mine:
        shutil.rmtree(ROOTS / name, ignore_errors=True)


def power_on(machine: Machine) -> None:
    """Start its agent in another boot than before."""
    boot = machine.home / "boot"
    boot.write_text(f"{uuid.uuid4()}\n")
    mounting = f'mount --bind {boot} {BOOT_ID} && exec "$@"'
    machine.within = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounting, "sh"]
    machine.start()


def boottime_s() -> float:
    """As tasks write it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


CLUSTERS = ("store", "zookeeper", "one server")
"""Those that meet random faults: three servers with their leases in this or that, and a single one."""


def asked_for(cluster: str) -> int:
    """How many faults of TOWLINE_FAULTS this cluster gets; 0 where nothing is said."""
    count, at = int(os.environ.get("TOWLINE_FAULTS") or 0), CLUSTERS.index(cluster)
    return (count + len(CLUSTERS) - 1 - at) // len(CLUSTERS)


def seed() -> int:
    return int(os.environ.get("TOWLINE_SEED") or random.SystemRandom().randrange(2**32))
