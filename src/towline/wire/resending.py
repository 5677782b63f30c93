"""How soon what is lost on the way is sent again, on the links between agents and servers."""

from __future__ import annotations

import socket

TCP_THIN_LINEAR_TIMEOUTS = 16  # linux/tcp.h; the standard library has no name for it


def send_again_soon(sock: socket.socket) -> None:
    """Where few packets are under way, such as heartbeats, a lost one is sent again after the same short time
    for the first times, not after one that doubles. Sockets that a listener accepts do as it does."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1)
