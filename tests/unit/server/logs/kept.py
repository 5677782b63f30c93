"""An archive on a disk, with what tests put into it."""

from __future__ import annotations

import queue
from pathlib import Path

from towline.logs.archive import Archive, Frame

SEGMENT_BYTES = 1_000


class Kept(Archive):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "output", SEGMENT_BYTES)
        self.open()

    def put(self, attempt: str, offset: int, data: bytes, *, stream: int = 0, end: bool = False) -> None:
        told: queue.Queue[Exception | None] = queue.Queue()
        times = ((offset, 1_000 + offset, 0),) if data else ()
        self.append(Frame(attempt, stream, offset, times, end, data), told.put)
        assert told.get(timeout=30) is None
