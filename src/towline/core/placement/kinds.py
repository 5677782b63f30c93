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


class OfDevices(NamedTuple):
    """Of some nodes, [node, kind]: what their devices alone would allow."""

    fitting: Numbers
    """How many shares (or whole devices) of the kind fit on all devices together."""
    amount: Numbers
    """What is free of the devices where one fits, in 64ths of an element."""


class Kinds:
    """Columns of kinds, appended and never removed."""

    def __init__(self) -> None:
        self.all: list[Amounts] = []
        self.n = 0
        self._cpu: Numbers = np.zeros(0)
        self._memory: Numbers = np.zeros(0)
        self._count: Numbers = np.zeros(0)
        self._fitting: Numbers = np.zeros((WHOLE_MILLI + 1, 0))
        """[thousandths free, kind]: how many shares fit on a device."""
        self._amount: Numbers = np.zeros((WHOLE_MILLI + 1, 0))
        """The same: what is free of it, where one fits, in 64ths of an element. Rounded for each device, so
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
        self._fitting = np.hstack([self._fitting, (free // asked).astype(np.float64)])
        self._amount = np.hstack([self._amount, amount])
        self._serves = np.zeros((0, 0))

    def of_devices(
        self, view: NodeColumns, gpu_milli: NDArray[np.int64], kind: Column, first: int
    ) -> OfDevices:
        """What these free devices would allow to kinds from ``first`` on.

        ``gpu_milli``: [node, device] thousandths free. ``kind``: that of each node's first device.
        """
        serves = self._serving(view)[kind + 1, first:]
        fitting = np.take(self._fitting[:, first:], gpu_milli, axis=0).sum(axis=1) * serves
        return OfDevices(fitting, np.take(self._amount[:, first:], gpu_milli, axis=0).sum(axis=1) * serves)

    def without(self, now: OfDevices, level: Column, milli: int, count: int, first: int) -> OfDevices:
        """The same once an element has so many thousandths of ``count`` devices that had ``level`` free.

        Where a kind may not have the devices, numbers are 0 or below: nothing fits.
        """
        fitting, amount = self._fitting[:, first:], self._amount[:, first:]
        return OfDevices(
            now.fitting + count * (fitting[level - milli] - fitting[level]),
            now.amount + count * (amount[level - milli] - amount[level]),
        )

    def usable(self, devices: OfDevices, cpu_milli: Column, memory_bytes: Column, first: int) -> Numbers:
        """[node, kind from ``first`` on]: how much nodes with this left could take, in 64ths of elements."""
        fits = devices.fitting / self._count[first:]
        np.minimum(fits, cpu_milli[:, None] / self._cpu[first:], out=fits)
        np.minimum(fits, memory_bytes[:, None] / self._memory[first:], out=fits)
        np.floor(fits, out=fits)
        np.maximum(fits, 0, out=fits)
        found = fits * (UNIT - DEVICES_PART)
        found += devices.amount
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
