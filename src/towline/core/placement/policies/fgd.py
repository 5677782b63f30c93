"""FGD, fragmentation gradient descent (Weng et al., "Beware of Fragmentation", USENIX ATC 2023).

F(node) is the sum over typical elements of frequency × what is free of the node's devices that such an
element cannot use; an element goes where F grows least. As in the authors' artifact: scores are
100 × sigmoid((F before − F after) / 1000) cut to whole numbers, equal nodes go in their order, memory is
left out of F, and a share goes to the device with the best score of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from towline.core.placement.columns import Column, NodeColumns
from towline.core.placement.filters.gpus import serving_kinds
from towline.core.placement.gpu_fit import without_whole
from towline.core.placement.shape import WHOLE_MILLI, Shape

TYPICAL_SHARE = 0.95
"""The most frequent shapes that make up so much of all elements are the typical ones."""

Numbers = NDArray[np.float64]


class Fgd:
    """``typical``: (shape, frequency); frequencies add up to 1."""

    name = "fgd"

    def __init__(self, typical: Iterable[tuple[Shape, float]]) -> None:
        self.typical = list(typical)
        shapes = [shape for shape, _ in self.typical]
        self._frequency: Numbers = np.array([part for _, part in self.typical], dtype=np.float64)
        self._cpu = np.array([shape.cpu_milli for shape in shapes], dtype=np.int64)
        self._count = np.array([shape.gpu_count for shape in shapes], dtype=np.int64)
        milli = np.array([max(shape.gpu_milli, 1) for shape in shapes], dtype=np.int64)
        free = np.arange(WHOLE_MILLI + 1, dtype=np.int64)[:, None]
        self._room: NDArray[np.int64] = (free >= milli).astype(np.int64)
        """[thousandths free, typical element]: 1 where a device has room for it."""
        self._rest: NDArray[np.int64] = np.where(free >= milli, 0, free)
        """The same: what is free of it, where it has no room."""
        self._serves: NDArray[np.bool_] = np.zeros((0, 0), dtype=np.bool_)

    def scores(self, view: NodeColumns, ask: Shape, columns: Column) -> Column:
        free = np.maximum(view.gpu_free_milli[columns], 0)
        if ask.shares:
            return self._by_device(view, ask, columns, free).max(axis=1)
        after = without_whole(free, ask.gpu_count) if ask.whole else free
        return self._score(view, ask, columns, free, after)

    def device(self, view: NodeColumns, ask: Shape, column: int) -> int:
        """The device of a node that a share is taken from: the first with the best score."""
        columns = np.array([column], dtype=np.int64)
        free = np.maximum(view.gpu_free_milli[columns], 0)
        return int(self._by_device(view, ask, columns, free)[0].argmax())

    def _by_device(
        self, view: NodeColumns, ask: Shape, columns: Column, free: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """[node, device]: the score of a share of that device, −1 where it has no room."""
        found = np.full(free.shape, -1, dtype=np.int64)
        for device in range(free.shape[1]):
            fits = np.flatnonzero(free[:, device] >= ask.gpu_milli)
            if len(fits):
                after = free[fits].copy()
                after[:, device] -= ask.gpu_milli
                found[fits, device] = self._score(view, ask, columns[fits], free[fits], after)
        return found

    def _score(
        self,
        view: NodeColumns,
        ask: Shape,
        columns: Column,
        free: NDArray[np.int64],
        after: NDArray[np.int64],
    ) -> Column:
        cpu = view.free_cpu_milli[columns]
        before = self._fragmentation(view, columns, cpu, free)
        gain = before - self._fragmentation(view, columns, cpu - ask.cpu_milli, after)
        scores: Numbers = 100 / (1 + np.exp(-gain / 1000))
        return np.floor(scores).astype(np.int64)

    def _fragmentation(
        self, view: NodeColumns, columns: Column, cpu: Column, free: NDArray[np.int64]
    ) -> Numbers:
        usable = (cpu[:, None] >= self._cpu) & (self._count > 0)
        usable &= np.take(self._room, free, axis=0).sum(axis=1) >= self._count
        usable &= self._serving(view)[view.device_kind[columns, 0]]
        rest = np.take(self._rest, free, axis=0).sum(axis=1).astype(np.float64)
        rest[~usable] = 0
        rest += ~usable * free.sum(axis=1)[:, None]
        return np.dot(rest, self._frequency)

    def _serving(self, view: NodeColumns) -> NDArray[np.bool_]:
        """[kind of device, and at the end none, typical element]: whether it may be given."""
        if len(self._serves) != len(view.kinds) + 1:
            found = [serving_kinds(view, shape) for shape, _ in self.typical]
            self._serves = np.array(found, dtype=np.bool_).reshape(len(found), -1).T
        return self._serves


def typical_of(shapes: Iterable[Shape], share: float = TYPICAL_SHARE) -> list[tuple[Shape, float]]:
    """The most frequent shapes that make up this share of all, with their frequencies among them.

    Shapes that differ in memory alone count as one, which the first of them stands for. Equally frequent
    ones come with the larger first.
    """
    counts: dict[tuple[int, int, int, tuple[str, ...]], int] = {}
    first: dict[tuple[int, int, int, tuple[str, ...]], Shape] = {}
    total = 0
    for shape in shapes:
        models = () if shape.gpu is None else shape.gpu.model
        key = (shape.cpu_milli, shape.gpu_milli, shape.gpu_count, models)
        counts[key] = counts.get(key, 0) + 1
        first.setdefault(key, shape)
        total += 1
    found: list[tuple[Shape, int]] = []
    counted = 0
    for key, count in sorted(counts.items(), key=lambda item: (item[1], item[0]), reverse=True):
        if counted >= share * total:
            break
        found.append((first[key], count))
        counted += count
    return [(shape, count / counted) for shape, count in found]
