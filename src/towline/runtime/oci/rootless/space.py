"""The user namespace of an ordinary user: he is its root, and his subordinate ids are its users from 1 up."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from towline.runtime.linux.mounting import enter_private_mounts, mount
from towline.runtime.linux.trees import namespace_mapped_by

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWUSER = 0x10000000
_MS_RDONLY = 1
_MAX_COUNT = 1 << 16
_TIMEOUT_S = 10
_PROGRAMS = ("newuidmap", "newgidmap")
_SWITCHES = {
    "kernel/unprivileged_userns_clone": "0",
    "kernel/apparmor_restrict_unprivileged_userns": "1",
    "user/max_user_namespaces": "0",
}
"""Files of /proc/sys, and what is in them where an ordinary user may make no user namespace."""


class SpaceUnavailable(Exception):
    """Why this user can have no such namespace, a sentence with a remedy."""


class Subordinate(NamedTuple):
    """The ids that a user has beside his own; ``size`` of each kind."""

    first_uid: int
    first_gid: int
    size: int


def subordinate_ids(etc: Path = Path("/etc"), uid: int | None = None) -> Subordinate:
    """Those of whoever runs this, as /etc/subuid and /etc/subgid say. Raises SpaceUnavailable."""
    uid = os.geteuid() if uid is None else uid
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    found = [_range(etc / file, (name, str(uid))) for file in ("subuid", "subgid")]
    if found[0] is None or found[1] is None:
        ids = "100000-165535"
        raise SpaceUnavailable(
            f"the user {name} has no subordinate ids in /etc/subuid and /etc/subgid: have root give some, "
            f"with usermod --add-subuids {ids} --add-subgids {ids} {name} (a range that nobody else has)"
        )
    return Subordinate(found[0][0], found[1][0], min(found[0][1], found[1][1], _MAX_COUNT))


def _range(file: Path, names: tuple[str, str]) -> tuple[int, int] | None:
    """The first range (start, count) of a user, by name or number."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split(":")
        if len(fields) == 3 and fields[0] in names and fields[1].isdecimal() and fields[2].isdecimal():
            return int(fields[1]), int(fields[2])
    return None


class Space:
    """The namespace, made when first asked for; it lives while this process does."""

    def __init__(self) -> None:
        self._made: int | None = None

    def descriptor(self) -> int:
        """Raises SpaceUnavailable."""
        if self._made is None:
            find_programs()
            ids = subordinate_ids()
            try:
                self._made = namespace_mapped_by(lambda child: _map(child, ids))
            except OSError as error:
                raise SpaceUnavailable(_closed(error)) from error
        return self._made


def find_programs() -> None:
    """Raises SpaceUnavailable where one is missing."""
    for program in _PROGRAMS:
        if shutil.which(program) is None:
            raise SpaceUnavailable(
                f"{program}, which gives an ordinary user's containers their ids, is missing: have root "
                f"install it (apt-get install uidmap)"
            )


def _map(child: int, ids: Subordinate) -> None:
    """Raises SpaceUnavailable."""
    firsts = (os.geteuid(), ids.first_uid), (os.getegid(), ids.first_gid)
    for program, (own, first) in zip(_PROGRAMS, firsts, strict=True):
        argv = [program, *map(str, (child, 0, own, 1, 1, first, ids.size))]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SpaceUnavailable(f"{program} cannot be run ({error}): apt-get install uidmap") from error
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise SpaceUnavailable(
                f"{program} fails and says: {said[:200]}: see that it is setuid root (apt-get install "
                f"--reinstall uidmap) and that /etc/subuid and /etc/subgid are in order"
            )


def _closed(error: OSError) -> str:
    what = f"this machine lets ordinary users make no user namespace ({error.strerror})"
    for name, closed in _SWITCHES.items():
        try:
            value = Path("/proc/sys", name).read_text().strip()
        except OSError:
            continue
        if value == closed:
            opened = {"0": "1", "1": "0"}[closed] if "max" not in name else "65536"
            return f"{what}: have root allow it, with sysctl -w {name.replace('/', '.')}={opened}"
    return f"{what}: have root allow it, or start tow as root (sudo)"


def enter(space: int, hidden: str | None) -> None:
    """Become root in the namespace, in a mount namespace of our own, in which nothing is to be seen of what
    is mounted at ``hidden``. For a process with one thread only. Raises OSError."""
    _check(_libc.setns(space, _CLONE_NEWUSER), "setns")
    enter_private_mounts()
    if hidden is not None:
        # It cannot be unmounted here, being of the machine; what is above it is ours.
        mount("tmpfs", hidden, "tmpfs", _MS_RDONLY)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
