"""Reads one stream of an attempt from an offset on, with its times, in memory that does not grow.

``reader.read`` looks for times from the end of the index, which suits who follows the end; whoever takes
a long backlog piece by piece goes on where the last piece ended.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from towline.logs import entries
from towline.logs.entries import ENTRY_BYTES, HEAD, INDEX, STREAMS, Entry

_BLOCK_BYTES = ENTRY_BYTES * 512


class Passage(NamedTuple):
    """``times``: (offset, unix ms, kind as in Entry), the first one for the first byte of ``data``; none
    where the index has nothing."""

    data: bytes
    times: tuple[tuple[int, int, int], ...]


class Forward:
    def __init__(self, directory: str, stream: int) -> None:
        self._directory = directory
        self._stream = stream
        self._position = HEAD.size
        """Of the first entry in the index that has not been passed."""
        self._last: Entry | None = None

    def read(self, offset: int, limit: int, most_times: int) -> Passage:
        """Up to ``limit`` bytes from ``offset`` on, which is not before where the last ones ended, cut where
        they have more times than ``most_times``. Raises OSError."""
        try:
            data = _pread(f"{self._directory}/{STREAMS[self._stream]}", offset, limit)
            times = self._times(offset, offset + len(data), most_times) if data else []
        except FileNotFoundError:
            return Passage(b"", ())
        if len(times) > most_times:
            data = data[: times[most_times][0] - offset]
        return Passage(data, tuple(times[:most_times]))

    def _times(self, start: int, end: int, most: int) -> list[tuple[int, int, int]]:
        inside: list[tuple[int, int, int]] = []
        index = os.open(f"{self._directory}/{INDEX}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            position = self._position
            over = False
            while not over and (block := os.pread(index, _BLOCK_BYTES, position)):
                for at in range(0, len(block) - ENTRY_BYTES + 1, ENTRY_BYTES):
                    for entry in entries.unpack(block[at : at + ENTRY_BYTES]):
                        if entry.stream != self._stream:
                            continue
                        if entry.offset <= start:
                            self._last, self._position = entry, position + at + ENTRY_BYTES
                        elif entry.offset < end and len(inside) <= most:
                            inside.append((entry.offset, entry.at_ms, entry.kind))
                        else:
                            over = True
                    if over:
                        break
                if len(block) < ENTRY_BYTES:
                    break
                position += len(block) // ENTRY_BYTES * ENTRY_BYTES
                if not inside and not over:
                    self._position = position
        finally:
            os.close(index)
        first = [] if self._last is None else [(start, self._last.at_ms, self._last.kind)]
        return first + inside


def _pread(path: str, offset: int, limit: int) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(file, limit, offset)
    finally:
        os.close(file)
