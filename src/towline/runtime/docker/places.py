"""Where an Engine answers on this machine: the places in which Docker's own client and Podman's look."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

SYSTEM = "/var/run/docker.sock"


class Closed(NamedTuple):
    """A socket that this user may not use. ``owner`` is as ``root:docker``."""

    path: str
    owner: str
    group: str


def find_engine(environ: Mapping[str, str], home: str | None = None) -> str | None:
    """The URL of the first: DOCKER_HOST (which is taken as it is, also where nothing answers there),
    Docker's socket, that of Docker Desktop, Podman's own of the user and of the system. None: there is none.
    """
    if environ.get("DOCKER_HOST"):
        return environ["DOCKER_HOST"]
    return next((f"unix://{path}" for path in _sockets(environ, home) if _is_ours(path)), None)


def closed_socket(environ: Mapping[str, str], home: str | None = None) -> Closed | None:
    """The first socket of an Engine that is there, and is not for this user."""
    for path in _sockets(environ, home):
        with suppress(OSError):
            found = os.stat(path)
            if stat.S_ISSOCK(found.st_mode) and not _is_ours(path):
                user, group = _name(pwd.getpwuid, found.st_uid), _name(grp.getgrgid, found.st_gid)
                return Closed(path, f"{user}:{group}", group)
    return None


def _sockets(environ: Mapping[str, str], home: str | None) -> tuple[str, ...]:
    folder = environ.get("HOME", "/") if home is None else home
    runtime_dir = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return (
        SYSTEM,
        f"{runtime_dir}/docker.sock",
        f"{folder}/.docker/run/docker.sock",
        f"{runtime_dir}/podman/podman.sock",
        "/run/podman/podman.sock",
    )


def _name(find: Callable[[int], Any], number: int) -> str:
    try:
        return str(find(number)[0])
    except KeyError:
        return str(number)


def socket_path(url: str) -> str | None:
    """The path of a ``unix://`` URL; None for an Engine elsewhere."""
    return url.removeprefix("unix://") if url.startswith("unix://") else None


def _is_ours(path: str) -> bool:
    """Whether it is a socket that we may use: most laptops have one of root's that the user may not."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode) and os.access(path, os.R_OK | os.W_OK)
    except OSError:
        return False
