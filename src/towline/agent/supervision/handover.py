"""What keeper and supervisor pass each other: descriptors by name, and the exits of orphans.

A supervisor whose keeper dies takes its place: see ``KeeperLink.replace``.

Over the socket pair go single messages: ``+ NAME…`` with one descriptor a name, ``- NAME…``
(forget these), ``x`` (the exits file has grown), ``.`` (all descriptors were sent), ``l`` (an attempt
is about to live by the node lease), ``q`` (end).
The names say what a descriptor is: ``out.3`` and ``err.3`` are the pipes of slot 3, ``pid.77.1234``
is the pidfd of process 77 started at 1234 ms.
"""

from __future__ import annotations

import array
import errno
import io
import json
import os
import socket
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple, NoReturn

from towline.agent.supervision import kernel

EXITS = "exits"
LOCK = "keeper.lock"
_BATCH = 200  # the kernel passes at most 253 descriptors with a message
_MESSAGE_BYTES = 65536
_AHEAD_BYTES = 64 << 10
"""Taken ahead in the exits file: the ends of some thousand orphans."""


class Orphan(NamedTuple):
    """A line of the exits file: an orphan that the keeper has reaped. ``start_ms`` is CLOCK_BOOTTIME."""

    pid: int
    start_ms: int
    session: int
    status: int
    cpu_ms: int
    peak_kib: int


def send_descriptors(sock: socket.socket, descriptors: Mapping[str, int]) -> None:
    """Raises OSError if the other side is gone."""
    names = list(descriptors)
    for at in range(0, len(names), _BATCH):
        batch = names[at : at + _BATCH]
        fds = array.array("i", [descriptors[name] for name in batch])
        text = ("+ " + " ".join(batch)).encode()
        sock.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])


def send_forget(sock: socket.socket, names: Iterable[str]) -> None:
    names = list(names)
    for at in range(0, len(names), _BATCH):
        sock.send(("- " + " ".join(names[at : at + _BATCH])).encode())


def receive(sock: socket.socket) -> tuple[str, list[str], list[int]] | None:
    """One message: its sign, its names and its descriptors (close-on-exec). None at the end."""
    data, ancillary, _, _ = sock.recvmsg(
        _MESSAGE_BYTES, socket.CMSG_SPACE(_BATCH * 4), socket.MSG_CMSG_CLOEXEC
    )
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if not data:
        return None
    sign, *names = data.decode().split(" ")
    return sign, names, list(fds)


def take_ahead(file: int) -> None:
    """Have the exits file keep room for what is still to be written, so that a full disk does not matter."""
    there = os.fstat(file)
    if there.st_blocks * 512 - there.st_size < _AHEAD_BYTES // 2:
        kernel.take_room(file, there.st_size, _AHEAD_BYTES)


def append_orphan(file: int, orphan: Orphan) -> None:
    """A whole line or nothing. Raises OSError, such as for a full disk."""
    line = (" ".join(map(str, orphan)) + "\n").encode()
    written = os.write(file, line)
    if written < len(line):
        os.ftruncate(file, os.fstat(file).st_size - written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_orphans(path: str, offset: int) -> tuple[list[Orphan], int]:
    """The whole lines from ``offset``, and where to read on. Lines that are no such are left out."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    end = data.rfind(b"\n") + 1
    found = []
    for line in data[:end].splitlines():
        try:
            found.append(Orphan(*map(int, line.split())))
        except (ValueError, TypeError):
            continue
    return found, offset + end


def write_bequest(descriptors: Mapping[str, int], lock: int) -> int:
    """For the keeper that this process is about to become: a descriptor to name to its program, from
    which ``read_bequest`` gets all. Everything in it stays open over the exec."""
    for fd in (*descriptors.values(), lock):
        os.set_inheritable(fd, True)
    memory = os.memfd_create("towline-bequest", 0)
    os.write(memory, json.dumps({"descriptors": dict(descriptors), "lock": lock}).encode())
    return memory


def read_bequest(memory: int) -> tuple[dict[str, int], int]:
    with os.fdopen(memory, "rb") as file:
        file.seek(0)
        data = json.load(file)
    for fd in (*data["descriptors"].values(), data["lock"]):
        os.set_inheritable(fd, False)
    return data["descriptors"], data["lock"]


class Messages(io.TextIOBase):
    """Standard error, a file in the home: on a full disk lines are left out, and nothing is raised."""

    def write(self, text: str) -> int:
        try:
            os.write(2, text.encode(errors="backslashreplace"))
        except OSError:
            return 0
        return len(text)


class KeeperLink:
    """``held`` are our own copies, by name, of what the keeper holds."""

    def __init__(self, node_dir: str, sock: socket.socket, lock: int) -> None:
        self.node_dir = node_dir
        self.sock = sock
        self.lock = lock
        self.gone = False
        self.held: dict[str, int] = {}
        self.orphans: list[Orphan] = []
        self._offset = 0

    def take_over(self) -> None:
        """What the supervisor before us left with the keeper. Blocks until all is here."""
        while (message := receive(self.sock)) is not None:
            sign, names, fds = message
            if sign == "+":
                self.held.update(zip(names, fds, strict=True))
            elif sign == ".":
                break
        else:
            self.gone = True
        self.read_exits()

    def give(self, descriptors: dict[str, int]) -> None:
        self.held.update(descriptors)
        try:
            send_descriptors(self.sock, descriptors)
        except OSError:
            self.gone = True

    def take_back(self, names: Iterable[str]) -> None:
        """Names whose descriptors we have closed, or are about to."""
        names = [name for name in names if self.held.pop(name, None) is not None]
        try:
            send_forget(self.sock, names)
        except OSError:
            self.gone = True

    def announce_lease(self) -> None:
        """Have the keeper look after the node lease. Where it has not taken in what was sent before this, it
        will look then."""
        try:
            self.sock.send(b"l", socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self.gone = True

    def listen(self) -> bool:
        """A message waits. Returns whether orphans have ended."""
        try:
            message = receive(self.sock)
        except OSError:
            message = None
        if message is None:
            self.gone = True
            return False
        return self.read_exits()

    def read_exits(self) -> bool:
        found, self._offset = read_orphans(f"{self.node_dir}/{EXITS}", self._offset)
        self.orphans += found
        return bool(found)

    def clear_exits(self) -> None:
        """They are of an earlier boot."""
        file = os.open(f"{self.node_dir}/{EXITS}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(file, 0)
            take_ahead(file)
        finally:
            os.close(file)
        self.orphans.clear()
        self._offset = 0

    def ask_for_end(self) -> None:
        try:
            self.sock.send(b"q")
        except OSError:
            self.gone = True

    def replace(self) -> NoReturn:
        """The keeper is dead: become it. Our children stay ours; its lock came down to us."""
        memory = write_bequest(self.held, self.lock)
        program = [
            sys.executable,
            "-P",
            "-m",
            "towline.agent.keeper",
            self.node_dir,
            "--bequest",
            str(memory),
        ]
        os.execv(sys.executable, program)
