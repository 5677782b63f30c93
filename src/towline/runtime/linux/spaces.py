"""Namespaces and orphans of whoever runs containers: a mount namespace of its own, and being a subreaper."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from towline.runtime.linux.mounting import enter_private_mounts

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_CHILD_SUBREAPER = 36
_MNT_DETACH = 2


def become_subreaper() -> None:
    """Orphans below this process become its children. Survives exec. Raises OSError."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def hybrid_mount() -> str | None:
    """Where the unified cgroup hierarchy is mounted beside version 1 ones; None if it is not."""
    unified, legacy = None, False
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind = after.split()[0]
        if kind == "cgroup2":
            unified = before.split()[4]
        legacy = legacy or kind == "cgroup"
    return unified if legacy else None


def enter_mounts_without(mount: str | None) -> None:
    """Enter a mount namespace of our own, in which ``mount`` is not there. Raises OSError."""
    enter_private_mounts()
    if mount is not None and _libc.umount2(os.fsencode(mount), _MNT_DETACH) != 0:
        raise OSError(ctypes.get_errno(), f"umount {mount}")
