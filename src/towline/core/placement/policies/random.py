"""Any node with room, by a hash of a seed: the same in every process."""

from __future__ import annotations

import numpy as np

from towline.core.placement.columns import Column, NodeColumns
from towline.core.placement.shape import Shape

_BITS = 40


class Random:
    """``seed``: which of the random orders. Each call draws anew."""

    name = "random"
    moving = True

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._draws = 0

    def scores(self, view: NodeColumns, ask: Shape, columns: Column) -> Column:
        self._draws += 1
        start = (self._seed * 0x9E3779B97F4A7C15 + self._draws * 0xD1B54A32D192ED03) % 2**64
        with np.errstate(over="ignore"):
            mixed = columns.astype(np.uint64) * np.uint64(0xBF58476D1CE4E5B9) + np.uint64(start)
            mixed ^= mixed >> np.uint64(30)
            mixed *= np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(27)
            mixed *= np.uint64(0x94D049BB133111EB)
        return (mixed >> np.uint64(64 - _BITS)).astype(np.int64)
