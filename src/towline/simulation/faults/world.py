"""Virtual time and chance: everything that happens in a history happens from one queue.

Nothing here waits or asks a real clock, and there is one source of chance, so a seed is a history. Times are
microseconds, so that hardly ever two things happen at once; what does happens in the order it was planned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any
from zlib import crc32

MS, SECOND = 1_000, 1_000_000
START_MS = 1_800_000_000_000
"""The wall clock where virtual time begins; any moment would do."""
LAST_STEPS = 40
"""So many of the schedule's last steps are shown where a promise is broken."""
MOST_BROKEN = 5
ASKED_EVERY = 64


class World:
    """The queue of what is to happen. ``faulty`` says whether things may still go wrong."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.now_us = 0
        self.faulty = True
        self.steps = 0
        self.delivered = 0
        """Messages that have arrived where they were sent to."""
        self.counts: dict[str, int] = {}
        """How often each fault struck, by name."""
        self.broken: list[str] = []
        self.digest = 0
        """Of every message and when it arrived: two histories of the same digest are the same."""
        self._last: deque[tuple[int, str, str, str, Any]] = deque(maxlen=LAST_STEPS)
        self._queue: list[tuple[int, int, Callable[..., object], tuple[Any, ...]]] = []
        self._added = self._looked = 0

    def after(self, delay_us: int, happening: Callable[..., object], *args: Any) -> None:
        """Let something happen later; what is due at one moment happens in the order it was added."""
        self._added += 1
        heappush(self._queue, (self.now_us + max(0, delay_us), self._added, happening, args))

    def chance(self, fault: str, probability: float) -> bool:
        """Whether a fault strikes now; counted if it does. The draw is made either way."""
        strikes = self.random.random() < probability and self.faulty
        if strikes:
            self.count(fault)
        return strikes

    def count(self, fault: str) -> None:
        self.counts[fault] = self.counts.get(fault, 0) + 1

    def arrived(self, source: str, target: str, what: Any, count: int, data: bytes) -> None:
        """``count`` messages have arrived; ``what`` says in words, if asked, what they were."""
        self.delivered += count
        self.digest = crc32(data, self.digest ^ (self.now_us & 0xFFFFFFFF))
        self._last.append((self.now_us, source, "->", target, what))

    def tell(self, who: str, what: str) -> None:
        """Something beside messages that the schedule's last steps should show."""
        self._last.append((self.now_us, who, ":", "", what))

    def breach(self, what: str) -> None:
        """A promise is broken: the history ends."""
        if len(self.broken) < MOST_BROKEN and what not in self.broken:
            self.broken.append(what)

    @property
    def last_steps(self) -> list[str]:
        return [
            f"{at / SECOND:10.4f} s  {source} {sign} {target}{' ' if target else ''}"
            f"{what() if callable(what) else what}"
            for at, source, sign, target, what in self._last
        ]

    def run(self, until: Callable[[], bool], most_us: int, every: int, look: Callable[[], None]) -> bool:
        """Let things happen until a condition holds or a promise is broken (True), or the time is up
        (False). ``look`` is called each ``every`` steps; the condition is asked each ``ASKED_EVERY``."""
        end_us = self.now_us + most_us
        queue, broken = self._queue, self.broken
        asked = 0
        while not broken:
            if asked == 0 and until():
                return True
            asked = (asked + 1) % ASKED_EVERY
            if not queue or queue[0][0] > end_us:
                self.now_us = end_us
                return False
            self.now_us, _, happening, args = heappop(queue)
            self.steps += 1
            happening(*args)
            if self.steps >= self._looked + every:
                self._looked = self.steps
                look()
        return True
