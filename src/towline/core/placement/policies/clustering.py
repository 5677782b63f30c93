"""GPU clustering (Xiao et al., "Gandiva", OSDI 2018), as the openb experiments have it: elements with
equally many devices go together.

From high to low: nodes that hold only elements like this one, nodes that hold some like it, nodes whose
devices are all free, the rest; within each, the node with the least left.
"""

from __future__ import annotations

import numpy as np

from towline.core.placement.columns import Column, NodeColumns
from towline.core.placement.shape import WHOLE_MILLI, Shape

_SHARES = 0
_QUARTER, _MAX_GPU_MILLI = 25, 8_000


class Clustering:
    """Scores of 0 to 100. What asks for no GPU goes to the first node with room.

    What a node holds is read from how its devices have changed since the last call: whole devices that
    were taken at once are one element's. A node whose devices are all free again holds nothing.
    """

    name = "clustering"
    moving = True

    def __init__(self) -> None:
        self._version: dict[int, int] = {}
        self._free: dict[int, list[int]] = {}
        self._held: dict[int, set[int]] = {}

    def scores(self, view: NodeColumns, ask: Shape, columns: Column) -> Column:
        self._follow(view)
        if ask.gpu is None:
            return np.zeros(len(columns), dtype=np.int64)
        mine = _SHARES if ask.shares else ask.gpu_count
        bands = np.array([self._band(column, mine) for column in columns.tolist()], dtype=np.int64)
        free = np.maximum(view.gpu_free_milli[columns], 0).sum(axis=1)
        return _QUARTER * np.maximum(_MAX_GPU_MILLI - free, 0) // _MAX_GPU_MILLI + _QUARTER * bands

    def _band(self, column: int, mine: int) -> int:
        held = self._held.get(column)
        if not held:
            return 1
        if mine not in held:
            return 0
        return 3 if len(held) == 1 else 2

    def _follow(self, view: NodeColumns) -> None:
        for column, version in enumerate(view.version.tolist()):
            if self._version.get(column) != version:
                self._version[column] = version
                self._read(column, [max(free, 0) for free in view.gpu_free_milli[column].tolist()], view)

    def _read(self, column: int, free: list[int], view: NodeColumns) -> None:
        before = self._free.get(column, [WHOLE_MILLI] * int(view.gpu_count[column]))
        before += [0] * (len(free) - len(before))
        self._free[column] = free
        if sum(free) == WHOLE_MILLI * int(view.gpu_count[column]):
            self._held.pop(column, None)
            return
        taken = [old - new for old, new in zip(before, free, strict=True) if old > new]
        whole = sum(milli == WHOLE_MILLI for milli in taken)
        held = self._held.setdefault(column, set())
        if whole:
            held.add(whole)
        if whole < len(taken):
            held.add(_SHARES)
