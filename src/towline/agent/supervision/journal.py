"""What the supervisor must know after its own death: records, appended without fsync.

A record is a mark, its length, its CRC and a msgpack body, and goes to the kernel with one write:
what a killed supervisor had written is there, and a reboot ends the attempts anyway. A record cut
off at the end was being written when its writer died, and what it told of had not been done yet.
Any other damage is set aside: the sound records still count, but under a new ``instance``, so that
the server takes nothing for granted about this node.

Room for what is still to be written is taken ahead, so that on a full disk attempts can be stopped and
their ends kept; what is to start needs more room than that, and is refused.
"""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

import msgspec
from msgspec import Struct

from towline.agent.supervision import kernel
from towline.core.commands import AttemptUpdate
from towline.runtime.port import Plan

_MARK = b"TWJ1"
_HEAD = struct.Struct("<4sII")
_COMPACT_BYTES = 8 << 20
_AHEAD_BYTES = 1 << 20
"""Taken ahead: the ends of some thousand attempts."""


class Begun(Struct, frozen=True, array_like=True, tag="begun"):
    """The first record, and the last of a rewrite. ``turn`` counts the starts before it, for the
    evidence of the next one."""

    instance: str
    boot_id: str
    turn: int


class Accepted(Struct, frozen=True, array_like=True, tag="accepted"):
    """Attempts are started in the order of these records."""

    plan: Plan


class Started(Struct, frozen=True, array_like=True, tag="started"):
    """``pid`` is the first process, or with ``starter`` the one that will make it. It was spawned
    between ``from_ms`` and ``to_ms`` (CLOCK_BOOTTIME). ``inodes`` are those of its output pipes."""

    attempt: str
    pid: int
    starter: bool
    at_ms: int
    monotonic_ms: int
    from_ms: int
    to_ms: int
    slot: int
    inodes: tuple[int, int]


class Confirmed(Struct, frozen=True, array_like=True, tag="confirmed"):
    """The starter has ended; ``pid`` is the first process, which started at ``start_ms``."""

    attempt: str
    pid: int
    start_ms: int


class Stopping(Struct, frozen=True, array_like=True, tag="stopping"):
    """Written before its SIGTERM is sent; SIGKILL follows at ``kill_ms`` (CLOCK_MONOTONIC)."""

    attempt: str
    reason: str
    kill_ms: int


class Stray(Struct, frozen=True, array_like=True, tag="stray"):
    """A child that nobody knew yet has ended: a container can end before its starter does. ``executed``:
    it had become another program than its parent's, which only a container's first process has to.
    ``start_ms`` (CLOCK_BOOTTIME) tells it from others of the same pid."""

    pid: int
    status: int
    cpu_ms: int | None
    peak_kib: int | None
    executed: bool = True
    start_ms: int = 0


class Held(Struct, frozen=True, array_like=True, tag="held"):
    """How it has ended is known; it is told once the disk has room for the last of its output."""

    update: AttemptUpdate
    cleaned: bool


class Ended(Struct, frozen=True, array_like=True, tag="ended"):
    """``cleaned``: nothing of it is left but its logs and artifacts."""

    update: AttemptUpdate
    cleaned: bool


class Cleaned(Struct, frozen=True, array_like=True, tag="cleaned"):
    attempt: str


class Forgotten(Struct, frozen=True, array_like=True, tag="forgotten"):
    attempts: tuple[str, ...]


Record = Begun | Accepted | Started | Confirmed | Stopping | Stray | Held | Ended | Cleaned | Forgotten

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def pack(record: Record) -> bytes:
    body = _encoder.encode(record)
    return _HEAD.pack(_MARK, len(body), crc32(body)) + body


def unpack(data: bytes) -> tuple[list[Record], bool, int]:
    """The sound records, whether any but a cut-off last one was damaged, and where that one begins."""
    records: list[Record] = []
    damaged = False
    at = 0
    while at < len(data):
        record, after = _unpack_one(data, at)
        if record is not None:
            records.append(record)
            at = after
            continue
        following = data.find(_MARK, at + 1)
        if following < 0:
            damaged = damaged or not _cut_off(data, at)
            break
        damaged = True
        at = following
    return records, damaged, at


def _unpack_one(data: bytes, at: int) -> tuple[Record | None, int]:
    if len(data) - at < _HEAD.size:
        return None, at
    mark, length, crc = _HEAD.unpack_from(data, at)
    end = at + _HEAD.size + length
    body = data[at + _HEAD.size : end]
    if mark != _MARK or end > len(data) or crc32(body) != crc:
        return None, at
    try:
        return _decoder.decode(body), end
    except msgspec.DecodeError:
        return None, at


def _cut_off(data: bytes, at: int) -> bool:
    """Whether what stands at ``at``, with nothing sound after it, is the beginning of a record."""
    rest = data[at : at + _HEAD.size]
    if not _MARK.startswith(rest[:4]) and rest[:4] != _MARK:
        return False
    return len(rest) < _HEAD.size or at + _HEAD.size + _HEAD.unpack(rest)[1] > len(data)


class Journal:
    """``found`` are the records that stood in it, ``rebooted`` says that they are of an earlier boot."""

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self._path = self.directory / "journal"
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        data = self._path.read_bytes() if self._path.exists() else b""
        self.found, damaged, end = unpack(data)
        begun = [record for record in self.found if isinstance(record, Begun)]
        boot_id = kernel.boot_id()
        self.rebooted = bool(begun) and begun[-1].boot_id != boot_id
        if damaged or (data and not begun):
            aside = self.directory / f"damaged-{kernel.wall_ms()}"
            aside.write_bytes(data)
            begun = []
        self.instance = begun[-1].instance if begun else secrets.token_hex(8)
        self._boot_id = boot_id
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if end != len(data):  # it would give back the room that is taken behind the end
            os.ftruncate(self._file, end)
        self._bytes = self._floor = end
        self._taken = 0
        self._take_ahead()

    def add(self, record: Record) -> None:
        """To be written with the next ``flush``."""
        data = pack(record)
        self._waiting.append(data)
        self._waiting_bytes += len(data)

    def flush(self) -> None:
        """Raises OSError where the disk is full: nothing may be done that is not on record."""
        if not self._waiting:
            return
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        written = os.write(self._file, data)
        while written < len(data):
            written += os.write(self._file, data[written:])
        self._bytes += len(data)
        if self._bytes > self._taken - _AHEAD_BYTES // 2:
            self._take_ahead()

    def _take_ahead(self) -> None:
        """Behind what waits to be written, for which there has to be room too."""
        length = self._waiting_bytes + _AHEAD_BYTES
        if kernel.take_room(self._file, self._bytes, length):
            self._taken = self._bytes + length

    def begin_again(self, turn: int) -> None:
        """In place of a ``rewrite`` for which there is no room: all records stay, and count for this boot."""
        self.add(Begun(self.instance, self._boot_id, turn))
        self.flush()

    @property
    def tight(self) -> bool:
        """The disk is full, and what is left of the room taken ahead is for the ends of what there is."""
        bytes_then = self._bytes + self._waiting_bytes
        if bytes_then > self._taken - _AHEAD_BYTES // 2:
            self._take_ahead()
        return bytes_then > self._taken - _AHEAD_BYTES // 2

    @property
    def spent(self) -> bool:
        """Of what is left half is used up too: from here on refusals are not written down."""
        return self._bytes + self._waiting_bytes > self._taken - _AHEAD_BYTES // 4

    @property
    def gone(self) -> bool:
        """Its file was removed, or another one stands in its place: nothing that is written to it will ever
        be read. One that was only moved away may come back."""
        ours = os.fstat(self._file)
        if ours.st_nlink == 0:
            return True
        try:
            return not os.path.samestat(ours, self._path.stat())
        except OSError:
            return False

    @property
    def large(self) -> bool:
        """Time to ``rewrite`` it: most of what it holds is over."""
        return self._bytes > _COMPACT_BYTES and self._bytes > 4 * self._floor

    def rewrite(self, turn: int, records: Iterable[Record]) -> None:
        """Keep only these records, which say all that still matters, the waiting ones included. Raises
        OSError where there is no room for them; then all is as it was."""
        begun = Begun(self.instance, self._boot_id, turn)
        # Once more at the end: the starts among the records were counted before.
        data = b"".join(map(pack, [begun, *records, begun]))
        fresh = self._path.with_suffix(".new")
        file = os.open(fresh, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            written = 0
            while written < len(data):
                written += os.write(file, data[written:])
            fresh.rename(self._path)
        except OSError:
            os.close(file)
            fresh.unlink()
            raise
        os.close(self._file)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._file = file
        self._bytes = self._floor = len(data)
        self._taken = 0
        self._take_ahead()
