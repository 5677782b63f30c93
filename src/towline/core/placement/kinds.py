"""How many elements of each kind a node could still take: numbers of one column a kind.

``usable`` mixes two readings: two parts in three of how many elements would fit at once, with their CPUs and
memory; and one of how much of the free devices elements of the kind could use if one fits at all,
which is what FGD (Weng et al., "Beware of Fragmentation", USENIX ATC 2023) looks at.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from towline.core.placement.columns import Column, NodeColumns
from towline.core.placement.filters.gpus import serving_kinds
from towline.core.placement.shape import WHOLE_MILLI, Shape

Numbers = NDArray[np.float64]
"""Whole numbers, in floats: sums and products stay exact below 2^53, in any order."""

UNIT = 64
"""``usable`` counts in 64ths of an element."""
DEVICES_PART = 22
"""So many of them are for what elements could use of the free devices, the others for how many would fit."""


class Amounts(NamedTuple):
    """What one element of a kind asks for. ``shape``: says which devices it accepts; None: any."""

    cpu_milli: int
    memory_bytes: int
    gpu_count: int
    gpu_milli: int
    shape: Shape | None


FITTING, AMOUNT = range(2)
"""Of some nodes, [node, 0 or 1, kind], ``Numbers`` say what their devices alone would allow: how many shares
(or whole devices) of the kind fit on all devices together; and what is free of the devices where one fits, in
64ths of an element."""


class Kinds:
    """Columns of kinds, appended and never removed."""

    def __init__(self) -> None:
        self.all: list[Amounts] = []
        self.n = 0
        self._cpu: Numbers = np.zeros(0)
        self._memory: Numbers = np.zeros(0)
        self._count: Numbers = np.zeros(0)
        self._of_device: Numbers = np.zeros((WHOLE_MILLI + 1, 2, 0))
        """[thousandths free, 0 or 1, kind]: what one device allows. The amount is rounded for each device, so
        that equal changes of devices are equal numbers on every node: what differs by rounding alone must
        not decide between nodes."""
        self._serves: Numbers = np.zeros((0, 0))
        """[kind of device + 1, kind]: 1 where it may be given; row 0 for nodes without devices."""

    def add(self, more: list[Amounts]) -> None:
        self.all.extend(more)
        self.n, every = len(self.all), self.all
        self._cpu = np.array([max(kind.cpu_milli, 1) for kind in every], dtype=np.float64)
        self._memory = np.array([max(kind.memory_bytes, 1) for kind in every], dtype=np.float64)
        self._count = np.array([kind.gpu_count for kind in every], dtype=np.float64)
        free = np.arange(WHOLE_MILLI + 1, dtype=np.int64)[:, None]
        asked = np.array([kind.gpu_milli for kind in more], dtype=np.int64)
        count = np.array([kind.gpu_count for kind in more], dtype=np.int64)
        amount = np.where(free >= asked, np.rint(free * DEVICES_PART / (asked * count)), 0)
        added = np.stack([(free // asked).astype(np.float64), amount], axis=1)
        self._of_device = np.concatenate([self._of_device, added], axis=2)
        self._serves = np.zeros((0, 0))

    def of_devices(
        self, view: NodeColumns, gpu_milli: NDArray[np.int64], kind: Column, first: int
    ) -> Numbers:
        """What these free devices would allow to kinds from ``first`` on: [node, 0 or 1, kind].

        ``gpu_milli``: [node, device] thousandths free. ``kind``: that of each node's first device.
        """
        allowed = self._of_device[:, :, first:].take(gpu_milli, axis=0).sum(axis=1)
        allowed *= self._serving(view)[kind + 1, None, first:]
        return allowed

    def taken(self, level: Column, milli: int, count: int, first: int) -> Numbers:
        """How that changes once an element has so many thousandths of ``count`` devices that had ``level``
        free.

        Where a kind may not have the devices, what is left is 0 or below: nothing fits.
        """
        of_device = self._of_device[:, :, first:]
        return (of_device.take(level - milli, axis=0) - of_device.take(level, axis=0)) * count

    def usable(self, devices: Numbers, cpu_milli: Column, memory_bytes: Column, first: int) -> Numbers:
        """[node, kind from ``first`` on]: how much nodes with this left could take, in 64ths of elements."""
        fits = devices[:, FITTING] / self._count[first:]
        np.minimum(fits, cpu_milli[:, None] / self._cpu[first:], out=fits)
        np.minimum(fits, memory_bytes[:, None] / self._memory[first:], out=fits)
        np.floor(fits, out=fits)
        np.maximum(fits, 0, out=fits)
        found = fits * (UNIT - DEVICES_PART)
        found += devices[:, AMOUNT]
        found *= fits > 0
        return found

    def _serving(self, view: NodeColumns) -> Numbers:
        if len(self._serves) != len(view.kinds) + 1:
            self._serves = np.zeros((len(view.kinds) + 1, self.n))
            for at, kind in enumerate(self.all):
                if kind.shape is None:
                    self._serves[1:, at] = 1
                else:
                    self._serves[1:, at] = serving_kinds(view, kind.shape)[:-1]
        return self._serves
