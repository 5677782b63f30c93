"""What a pool is asked for: how often elements of which kind have come, learnt as they come.

No workload has to be described beforehand. Elements are counted when they are queued, so the profile is
what the pool has seen so far and what waits now. All counts are integers, and the order of kinds is the
order in which they were first seen: equal commands give equal profiles in every process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from towline.core.placement.shape import Shape

FORGET_AT = 2**16
"""With so many elements counted all counts are halved: the recent past weighs more than the distant."""
STEPS_PER_DOUBLING = 2
"""Elements of one kind ask for the same CPUs and GPUs, and for memory that differs by less than about
the square root of two: memory rarely decides how many fit, CPUs beside GPUs nearly always do."""
MAX_SEEN = 1024
"""So many kinds are remembered at most; what comes new after that is counted in the total only."""

KindKey = tuple[int, int, int, tuple[str, ...], int, int]
GPUS_OF_KEY = 4
"""So many parts of a key, the first, are about GPUs."""


@dataclass(slots=True, eq=False)
class Seen:
    """One kind of element that asks for GPUs: its first shape stands for all of it."""

    shape: Shape
    count: int

    @property
    def devices(self) -> int:
        return self.count * self.shape.gpu_count


class Profile:
    """``total``: elements with GPUs that were counted; ``gpu_milli``: thousandths of devices that they asked
    for. ``kinds``: by key, in the order of their coming.
    ``halvings``: how often all counts were halved."""

    def __init__(self) -> None:
        self.total = 0
        self.gpu_milli = 0
        self.halvings = 0
        self.kinds: dict[KindKey, Seen] = {}

    def observe(self, shape: Shape, count: int = 1) -> Seen | None:
        """So many elements of this shape have come. What asks for no GPUs, or for slices, is left out.

        Returns the kind that they were counted as, if any.
        """
        if count < 1 or not (shape.whole or shape.shares):
            return None
        self.total += count
        self.gpu_milli += count * shape.gpu_count * shape.gpu_milli
        key = kind_key(shape)
        seen = self.kinds.get(key)
        if seen is not None:
            seen.count += count
        elif len(self.kinds) < MAX_SEEN:
            seen = self.kinds[key] = Seen(shape, count)
        while self.total >= FORGET_AT:
            self._halve()
        return seen

    def _halve(self) -> None:
        self.halvings += 1
        self.total //= 2
        self.gpu_milli //= 2
        for seen in self.kinds.values():
            seen.count //= 2

    def devices_by_milli(self) -> dict[int, int]:
        """By thousandths asked of a device, rising: how many devices of elements."""
        found: dict[int, int] = {}
        for seen in self.kinds.values():
            found[seen.shape.gpu_milli] = found.get(seen.shape.gpu_milli, 0) + seen.devices
        return {milli: count for milli, count in sorted(found.items()) if count}

    def largest_first(self) -> list[Seen]:
        """The kinds by the devices that they ask for together; equal ones in the order of their coming."""
        known = [seen for seen in self.kinds.values() if seen.count]
        return sorted(known, key=lambda seen: -seen.devices * seen.shape.gpu_milli)


@lru_cache(maxsize=16_384)
def kind_key(shape: Shape) -> KindKey:
    """What elements of one kind have in common."""
    gpu = shape.gpu
    models, memory = ((), 0) if gpu is None else (gpu.model, gpu.memory_bytes or 0)
    step = round(math.log2(max(shape.memory_bytes, 1)) * STEPS_PER_DOUBLING)
    return shape.gpu_count, shape.gpu_milli, memory, models, shape.cpu_milli, step
