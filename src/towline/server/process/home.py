"""What of a home belongs to its server: the lease, the socket, the start lock.

Little is imported here: it is the first thing that a starting server does.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from pathlib import Path

from towline.coordination.filelock import FileLease
from towline.errors import OperatorError

SOCKET = "tow.sock"
START_LOCK = "start.lock"
BACKLOG = 4096
"""Connections that wait to be accepted, as far as net.core.somaxconn allows: beyond them the kernel drops
what comes, and it comes again seconds later."""


async def wait_for_lease(lease: FileLease, patience_s: float) -> None:
    """Become the one server of a home; one that is just ending is waited for. Raises OperatorError."""
    try:
        async with asyncio.timeout(patience_s):
            await lease.acquire()
    except TimeoutError:
        holder = lease.holder()
        who = f"process {holder.pid}" if holder is not None else "another process"
        raise OperatorError(
            f"{lease.path.parent} is served by {who}: stop it, or use another TOWLINE_HOME"
        ) from None


def allow_many_files() -> None:
    """A connection is a file, and the usual limit of a process is 1,024 of them: take what we may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def lease_path(home: Path) -> Path:
    return home / "server.lock"


def bind_socket(path: Path) -> socket.socket:
    """Listen on a Unix socket that only its owner may use; what stood there is removed.

    To be called only by the holder of the lease: nobody else serves there.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
    finally:
        os.umask(before)
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def bind_port(host: str, port: int) -> socket.socket:
    """Listen on a host's address, over IPv4 and IPv6 where it is ``::``. Raises OperatorError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        if family is socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6():
            listener = socket.create_server(("", port), family=family, backlog=BACKLOG, dualstack_ipv6=True)
        else:
            listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)  # type: ignore[arg-type]
    except OSError as error:
        raise OperatorError(
            f"cannot listen on {host} port {port}: {error.strerror or error}. Set `listen` to an address of "
            "this machine and a free port."
        ) from None
    listener.setblocking(False)
    return listener
