"""Reads an attempt's output files, also while the supervisor still writes them."""

from __future__ import annotations

import os
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

from towline.logs import entries
from towline.logs.entries import ENTRY_BYTES, HEAD, INDEX, MAGIC, MARKER, STREAMS, Entry

_BLOCK_BYTES = ENTRY_BYTES * 4096


class Chunk(NamedTuple):
    """``index``: pairs of (offset, unix ms), the first at the first byte of ``data``; a byte has the
    time of the last pair at or before it. ``end``: nothing more was there when it was read."""

    data: bytes
    index: tuple[tuple[int, int], ...]
    end: bool


def read(directory: str, stream: str, offset: int, limit: int) -> Chunk:
    """Up to ``limit`` bytes of ``stream`` (stdout or stderr) from ``offset``, counted from the end
    where it is negative. An attempt that printed nothing has no files: empty. Raises OSError."""
    if stream not in STREAMS:
        raise ValueError(f"stream is stdout or stderr, not {stream!r}")
    try:
        fd = os.open(f"{directory}/{stream}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Chunk(b"", (), True)
    try:
        size = os.fstat(fd).st_size
        start = max(0, size + offset) if offset < 0 else offset
        data = os.pread(fd, max(0, min(limit, size - start)), start)
        modified_ms = int(os.fstat(fd).st_mtime * 1000)
    finally:
        os.close(fd)
    index = times(directory, stream, start, start + len(data), modified_ms) if data else ()
    return Chunk(data, index, start + len(data) >= size)


def size(directory: str, stream: str) -> int:
    """How many bytes of the stream are there now."""
    try:
        return Path(directory, stream).stat().st_size
    except FileNotFoundError:
        return 0


def tail(directory: str, stream: str, lines: int) -> int:
    """The offset at which the last ``lines`` lines begin; a last line without an end counts as one."""
    end = size(directory, stream)
    if lines <= 0 or end == 0:
        return end
    with Path(directory, stream).open("rb") as file:
        file.seek(end - 1)
        left = lines if file.read(1) != b"\n" else lines + 1
        start = end
        while start > 0:
            count = min(65536, start)
            start -= count
            file.seek(start)
            block = file.read(count)
            at = len(block)
            while (at := block.rfind(b"\n", 0, at)) >= 0:
                left -= 1
                if left == 0:
                    return start + at + 1
    return 0


def dropped(directory: str) -> tuple[int, int]:
    """The bytes of stdout and of stderr that were left out, as far as it is known by now."""
    try:
        with Path(directory, INDEX).open("rb") as file:
            head = file.read(HEAD.size)
    except FileNotFoundError:
        return (0, 0)
    if len(head) < HEAD.size or not head.startswith(MAGIC):
        return (0, 0)
    return HEAD.unpack(head)[1:]


def markers(directory: str) -> tuple[Entry, ...]:
    """Where Towline's own notes begin, which are no output of the command."""
    try:
        data = Path(directory, INDEX).read_bytes()
    except FileNotFoundError:
        return ()
    return tuple(entry for entry in entries.unpack(data[HEAD.size :]) if entry.kind == MARKER)


def times(directory: str, stream: str, start: int, end: int, default_ms: int) -> tuple[tuple[int, int], ...]:
    """The pairs of (offset, unix ms) for the bytes from ``start`` to ``end``; ``default_ms`` is the
    time of bytes whose entries are damaged or gone."""
    mine = _entries_until(directory, STREAMS.index(stream), start)
    at = bisect_right(mine, start, key=lambda entry: entry.offset)
    first = mine[at - 1].at_ms if at else (mine[0].at_ms if mine else default_ms)
    inside = [(entry.offset, entry.at_ms) for entry in mine[at:] if entry.offset < end]
    return ((start, first), *inside)


def _entries_until(directory: str, stream: int, start: int) -> list[Entry]:
    """The stream's last entries, in order, back to one at or before ``start``: from the end of the
    index, since what is followed is the end of the output."""
    found: list[Entry] = []
    try:
        fd = os.open(f"{directory}/{INDEX}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return found
    try:
        count = max(0, os.fstat(fd).st_size - HEAD.size) // ENTRY_BYTES
        end = HEAD.size + count * ENTRY_BYTES
        while end > HEAD.size:
            begin = max(HEAD.size, end - _BLOCK_BYTES)
            block = [e for e in entries.unpack(os.pread(fd, end - begin, begin)) if e.stream == stream]
            found = block + found
            if block and block[0].offset <= start:
                break
            end = begin
    finally:
        os.close(fd)
    return found
