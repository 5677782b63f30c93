"""Takes apart the stream in which an Engine sends a container's stdout and stderr together.

A frame is the number of the stream (1, 2), three zero bytes, the length (4 bytes, big-endian), and the
bytes, which may be anything. Frames and what the socket brings have no common borders.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_HEAD = struct.Struct(">B3xL")


class Frames:
    """``feed`` gives pairs of (0 stdout or 1 stderr, bytes) as soon as they are here: a frame may come in
    pieces, since one of several megabytes is not waited for."""

    def __init__(self) -> None:
        self._head = b""
        self._stream = 0
        self._left = 0

    @property
    def whole(self) -> bool:
        """Whether the stream ends where a frame does."""
        return not self._left and not self._head

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Raises ValueError where it is no such stream."""
        at = 0
        while at < len(data):
            if not self._left:
                piece = data[at : at + _HEAD.size - len(self._head)]
                at += len(piece)
                self._head += piece
                if len(self._head) < _HEAD.size:
                    return
                number, self._left = _HEAD.unpack(self._head)
                if number not in (1, 2):
                    raise ValueError(f"the Engine sent a frame of a stream {number}")
                self._stream = number - 1
                self._head = b""
                continue
            piece = data[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            yield self._stream, piece
