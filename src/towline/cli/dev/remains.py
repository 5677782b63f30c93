"""What runs and lies on this machine for one home, and its end: processes, containers, mounts, cgroups."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from towline.cli.doctor import processes_of
from towline.runtime.cgroups import cgroup_name

_LOOK_S = 0.02
_CGROUPS = "/sys/fs/cgroup"


def payloads(home: Path) -> list[int]:
    """Processes of attempts of this home, found by their TOW_OUT or their folder."""
    return [pid for pid in all_pids() if pid != os.getpid() and _is_payload(pid, home)]


def _is_payload(pid: int, home: Path) -> bool:
    with contextlib.suppress(OSError):
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if f"TOW_OUT={home}/".encode() in b"\n".join(environment):
            return True
        return os.readlink(f"/proc/{pid}/cwd").startswith(f"{home}/node/attempts/")  # noqa: PTH115 - texts, and there are many
    return False


def contained(home: Path) -> list[int]:
    """Processes in the cgroups of this home's attempts: also those in containers, which name the home
    nowhere else."""
    mark = _suffix(home)
    found: list[int] = []
    for pid in all_pids():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if mark in Path(f"/proc/{pid}/cgroup").read_text():
                found.append(pid)
    return found


def all_pids() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]


def kill_all(home: Path, patience_s: float) -> list[int]:
    """Kill Towline's processes of this home and what they have started, until there are none. Returns those
    that live on after ``patience_s``, which only the kernel can be asked about."""
    deadline = time.monotonic() + patience_s
    while pids := [pid for _, pid in processes_of(home)] + payloads(home) + contained(home):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return pids
        time.sleep(_LOOK_S)
    return []


def unmount_below(folder: Path | str) -> None:
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        target = line.split()[4]
        if target == str(folder) or target.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", target], check=False, capture_output=True)


def remove_cgroups(home: Path) -> None:
    """Those of this home's attempts."""
    remove_cgroups_named(_suffix(home))


def remove_cgroups_named(*endings: str) -> None:
    """Those whose names end so, and in which nothing is left."""
    for top, _, _ in os.walk(_CGROUPS, topdown=False):
        if os.path.basename(top).endswith(endings):  # noqa: PTH119 - texts, and there are many
            with contextlib.suppress(OSError):
                os.rmdir(top)  # noqa: PTH106 - texts, and there are many


def _suffix(home: Path) -> str:
    return cgroup_name("", os.fspath(home / "node"))
