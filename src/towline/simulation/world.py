"""Virtual time and chance: everything that happens in a simulation happens from one queue.

Nothing here waits or asks a real clock, and there is one source of chance, so a seed is a history.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from heapq import heappop, heappush
from random import Random

Happening = Callable[[], Awaitable[None] | None]

START_MS = 1_800_000_000_000
"""Where virtual time begins; any moment would do."""


class World:
    """The queue of what is to happen. ``faults`` says whether things may still go wrong."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.now_ms = START_MS
        self.faults = True
        self.steps = 0
        self.counts: dict[str, int] = {}
        """How often each fault struck, by name."""
        self._queue: list[tuple[int, int, Happening]] = []
        self._added = 0

    def after(self, delay_ms: int, happening: Happening) -> None:
        """Let something happen later; what is due at one moment happens in the order it was added."""
        self._added += 1
        heappush(self._queue, (self.now_ms + delay_ms, self._added, happening))

    def chance(self, fault: str, probability: float) -> bool:
        """Whether a fault strikes now; counted if it does. The draw is made either way."""
        strikes = self.random.random() < probability and self.faults
        if strikes:
            self.counts[fault] = self.counts.get(fault, 0) + 1
        return strikes

    async def run(self, until: Callable[[], bool], most_ms: int) -> bool:
        """Let things happen until a condition holds (True) or the virtual time is up (False)."""
        end_ms = self.now_ms + most_ms
        while not until():
            if not self._queue or self._queue[0][0] > end_ms:
                return False
            self.now_ms, _, happening = heappop(self._queue)
            self.steps += 1
            waiting = happening()
            if waiting is not None:
                await waiting
        return True


class Link:
    """A connection between a node and a leader: in order and whole while it lives, then gone.

    What is under way when it breaks is lost, as it is with TCP. While a way is ``held``, nothing arrives by
    it; ``release`` lets arrive what was sent meanwhile.
    """

    def __init__(self, world: World, held: set[str] | None = None) -> None:
        self._world = world
        self._free_ms = {"up": 0, "down": 0}
        self._waiting: list[Happening] = []
        self.open = True
        self.held = set() if held is None else held

    def send(self, way: str, deliver: Happening) -> None:
        """Deliver after a delay, behind what was sent the same way before."""
        if not self.open:
            return
        world = self._world
        at_ms = max(world.now_ms + world.random.randint(1, 20), self._free_ms[way])
        self._free_ms[way] = at_ms

        def arrive() -> Awaitable[None] | None:
            if way in self.held and self.open:
                self._waiting.append(arrive)
                return None
            return deliver() if self.open else None

        world.after(at_ms - world.now_ms, arrive)

    def release(self) -> None:
        """In the order in which it was sent, before anything that is sent later."""
        waiting, self._waiting = self._waiting, []
        for arrive in waiting:
            self._world.after(0, arrive)

    def close(self) -> None:
        self.open = False
