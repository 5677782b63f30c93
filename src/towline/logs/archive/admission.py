"""What a server takes of what a node ships: plain bookkeeping of one link, which trusts nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from towline.logs.archive.frames import Frame
from towline.logs.archive.index import Extent

MARKERS_BYTES = 64 * 1024
"""What Towline's own notes may add to an attempt's ``logs.max_bytes``."""


class _Open(Struct):
    expected: list[int]
    ended: list[bool]
    max_bytes: int


class Admission:
    """``window_bytes``: what may wait to become durable. Attempts are opened first."""

    def __init__(self, window_bytes: int) -> None:
        self._window_bytes = window_bytes
        self._open: dict[str, _Open] = {}
        self._waiting_bytes = 0

    @property
    def open_count(self) -> int:
        return len(self._open)

    def open(self, attempt: str, extent: Extent, max_bytes: int) -> None:
        """From now on its parts are taken, from ``extent`` on, as long as both streams together stay within
        ``max_bytes``."""
        self._open[attempt] = _Open(list(extent.sizes), list(extent.ended), max_bytes + MARKERS_BYTES)

    def close(self, attempt: str) -> None:
        self._open.pop(attempt, None)

    def take(self, frame: Frame) -> str | None:
        """Take it as the next one; or why it is refused, and the attempt closed."""
        known = self._open.get(frame.attempt)
        wrong = "it was not opened on this link" if known is None else self._wrong(known, frame)
        if wrong is not None or known is None:
            self.close(frame.attempt)
            return wrong
        known.expected[frame.stream] += len(frame.data)
        known.ended[frame.stream] = frame.end
        self._waiting_bytes += len(frame.data)
        return None

    def durable(self, count: int) -> None:
        """So many bytes of what was taken wait no longer."""
        self._waiting_bytes -= count

    def _wrong(self, known: _Open, frame: Frame) -> str | None:
        expected, end = known.expected[frame.stream], frame.offset + len(frame.data)
        if known.ended[frame.stream]:
            return "its stream had ended"
        if frame.offset != expected:
            return f"it begins at {frame.offset}, and {expected} follows next"
        if sum(known.expected) + len(frame.data) > known.max_bytes:
            return f"it is longer than the {known.max_bytes} bytes that its task's logs.max_bytes allow"
        if self._waiting_bytes + len(frame.data) > self._window_bytes:
            return f"more than {self._window_bytes} bytes were sent ahead"
        if not _in_order([at for at, _, _ in frame.times], frame.offset, end):
            return "its times are not those of its bytes"
        return None


def _in_order(offsets: Sequence[int], begin: int, end: int) -> bool:
    return all(begin <= at < end for at in offsets) and all(a <= b for a, b in pairwise(offsets))
