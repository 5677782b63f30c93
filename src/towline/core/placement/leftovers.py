"""How much of a device will in the end be left over, by how much of it is free now.

0.19 of a device is of no use to a pool where nobody asks for so little; 0.53 is where many ask for half
a device. The value of each level is learnt by playing: devices are filled with elements in the mix that
the profile has seen, each put where it raises the expected leftover least, until nothing fits any more;
what remained of the devices that passed through a level is the new expectation for it. That is policy
iteration, in the mean (shares of devices instead of single ones), so nothing is drawn at random.

The first guess is what the best of ``DRAWS`` elements would leave: a pool has many devices to choose
from, so a device does not get just any element.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from towline.core.placement.shape import WHOLE_MILLI

STEP_MILLI = 10
LEVELS = WHOLE_MILLI // STEP_MILLI
DRAWS = 30
ROUNDS = 30
DEMAND = 1.3
"""What comes in one game, in terms of what the devices could hold: more than fits."""
LEARNING = 0.5
_NOTHING = 1e-9

Items = list[tuple[int, float]]
"""(steps of a device, share of all that comes), the largest first."""


def expected_leftovers(asked: Mapping[int, int], before: list[float] | None, games: int) -> list[float]:
    """For 0 .. 1000 thousandths free, in steps of 10: the part of a device that will be left over.

    ``asked``: by thousandths of a device, how many devices of elements. ``before``: what was expected
    until now, None to begin anew. ``games``: how many times to play.
    """
    items = _items(asked)
    value = _best_of_draws(items) if before is None else list(before)
    for _ in range(games):
        played = _play(value, items)
        value = [old + LEARNING * (new - old) for old, new in zip(value, played, strict=True)]
    return value


def by_milli(value: list[float], scale: float) -> NDArray[np.int64]:
    """The same for each of 0 .. 1000 thousandths, times ``scale``, as integers."""
    steps = np.rint(np.array(value) * scale).astype(np.int64)
    return steps[np.arange(WHOLE_MILLI + 1) // STEP_MILLI]


def _items(asked: Mapping[int, int]) -> Items:
    steps: dict[int, int] = {}
    for milli, count in asked.items():
        step = -(-milli // STEP_MILLI)
        steps[step] = steps.get(step, 0) + count
    total = sum(steps.values())
    return [(step, count / total) for step, count in sorted(steps.items(), reverse=True)]


def _best_of_draws(items: Items) -> list[float]:
    value = [0.0] * (LEVELS + 1)
    for level in range(1, LEVELS + 1):
        ends = sorted((value[level - step], share) for step, share in items if step <= level)
        left, expected = 1.0, 0.0
        for end, share in [*ends, (level / LEVELS, 1.0)]:
            beyond = max(left - share, 0.0)
            expected += end * (left**DRAWS - beyond**DRAWS)
            left = beyond
        value[level] = expected
    return value


def _play(value: list[float], items: Items) -> list[float]:
    """Fill devices once; returns the new expectations, the old ones for levels that none came to."""
    order = [
        (step, share, sorted(range(step, LEVELS + 1), key=lambda at, by=step: value[at - by] - value[at]))
        for step, share in items
    ]
    volume = sum(step * share for step, share in items) / LEVELS
    devices = [0.0] * LEVELS + [1.0]
    moved: list[dict[int, float]] = [{} for _ in devices]
    for _ in range(ROUNDS):
        for step, share, levels in order:
            _put(devices, moved, step, share * DEMAND / volume / ROUNDS, levels)
    found: list[float] = []
    for level, (stayed, gone) in enumerate(zip(devices, moved, strict=True)):
        passed = stayed + sum(gone.values())
        if passed <= 1e-6:
            found.append(value[level])
            continue
        ends = sum(part * found[level - step] for step, part in gone.items())
        found.append((stayed * level / LEVELS + ends) / passed)
    return found


def _put(
    devices: list[float], moved: list[dict[int, float]], step: int, amount: float, levels: list[int]
) -> None:
    """Let so much come of one item, each part of it onto the best devices that there are."""
    for level in levels:
        there = devices[level]
        if there <= _NOTHING:
            continue
        some = min(amount, there)
        devices[level] -= some
        devices[level - step] += some
        moved[level][step] = moved[level].get(step, 0.0) + some
        amount -= some
        if amount <= _NOTHING:
            return
