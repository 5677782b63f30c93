"""The leader's clock: wall time that never goes back."""

from __future__ import annotations

import time


class Clock:
    """Milliseconds since 1970: the wall clock as it was at the start, moved on by the monotonic one.

    So a step of the wall clock (NTP, an operator) moves no timeout, backoff or silence.
    """

    def __init__(self) -> None:
        self._offset_ms = time.time_ns() // 1_000_000 - time.monotonic_ns() // 1_000_000

    def now_ms(self) -> int:
        return self._offset_ms + time.monotonic_ns() // 1_000_000
