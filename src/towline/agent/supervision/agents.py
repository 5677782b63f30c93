"""The supervisor's socket: one agent at a time, a new one in place of the old."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
from pathlib import Path

import msgspec

from towline.agent import control

SOCKET = "supervisor.sock"
_READ_BYTES = 1 << 20
_MAX_FRAME_BYTES = 64 << 20
_MAX_UNREAD_BYTES = 256 << 20


class AgentChannel:
    """``joined`` is set when an agent has come that has not been given the snapshot yet, ``left`` when one
    has gone."""

    def __init__(self, node_dir: str, epoll: select.epoll) -> None:
        self._epoll = epoll
        self._listener = _listen(node_dir)
        epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._agent: socket.socket | None = None
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self.joined = False
        self.left = False

    @property
    def listener(self) -> int:
        return self._listener.fileno()

    @property
    def agent(self) -> int:
        """Its descriptor; -1: none."""
        return -1 if self._agent is None else self._agent.fileno()

    def accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        self.drop()
        sock.setblocking(False)
        self._agent = sock
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self.joined = True

    def drop(self) -> None:
        """The agent has gone, or has to come again."""
        if self._agent is not None:
            self._epoll.unregister(self._agent.fileno())
            self._agent.close()
            self.left = True
        self._agent = None
        self._incoming.clear()
        self._outgoing.clear()
        self.joined = False

    def read(self) -> list[control.ToSupervisor]:
        """The messages that have come whole. An agent that sends anything else is dropped."""
        if self._agent is None:
            return []
        try:
            data = self._agent.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.drop()
            return []
        self._incoming += data
        try:
            return self._frames()
        except (msgspec.DecodeError, ValueError) as error:
            sys.stderr.write(f"supervisor: agent dropped: {error}\n")
            self.drop()
            return []

    def _frames(self) -> list[control.ToSupervisor]:
        messages: list[control.ToSupervisor] = []
        at = 0
        while len(self._incoming) - at >= 4:
            length = int.from_bytes(self._incoming[at : at + 4], "big")
            if length > _MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {length} bytes; the most is {_MAX_FRAME_BYTES}")
            if len(self._incoming) - at - 4 < length:
                break
            messages += control.decode_to_supervisor(bytes(self._incoming[at + 4 : at + 4 + length]))
            at += 4 + length
        del self._incoming[:at]
        return messages

    def send(self, message: control.FromSupervisor) -> None:
        if self._agent is None:
            return
        self._outgoing += control.encode([message])
        if len(self._outgoing) > _MAX_UNREAD_BYTES:
            self.drop()  # it does not read; the snapshot of its next connection says all
        else:
            self.flush()

    def flush(self) -> None:
        """Send what goes without waiting; the rest when the socket takes more."""
        if self._agent is None:
            return
        waited = bool(self._outgoing)
        try:
            while self._outgoing:
                del self._outgoing[: self._agent.send(self._outgoing)]
        except BlockingIOError:
            self._epoll.modify(self._agent.fileno(), select.EPOLLIN | select.EPOLLOUT)
            return
        except OSError:
            self.drop()
            return
        if waited:
            self._epoll.modify(self._agent.fileno(), select.EPOLLIN)


def _listen(node_dir: str) -> socket.socket:
    """Bound by a relative name, since a socket's name is at most 107 bytes long."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with contextlib.chdir(node_dir):
        Path(SOCKET).unlink(missing_ok=True)
        listener.bind(SOCKET)
        os.chmod(SOCKET, 0o600)
    listener.listen(16)
    return listener
