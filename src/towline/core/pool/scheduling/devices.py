"""The devices of the nodes that reservations look at: a row each, behind the other amounts of a node.

So a reservation is for devices that will be free at its time, and what would still hold one of them
then does not start. The devices that an element holds are on record; those that one would get if it
started now are asked of the placement itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from towline.core.backfill import Column, Devices
from towline.core.placement.columns import NodeColumns
from towline.core.placement.filters.conditions import kind_serves
from towline.core.placement.filters.gpus import serving_kinds
from towline.core.placement.ledger import WHOLE_MILLI, Device, parse_devices
from towline.core.placement.shape import Shape


class DeviceRows:
    """``columns``: the nodes, in their order; the rows of each are its devices, then its MIG slices."""

    def __init__(self, nodes: NodeColumns, columns: Sequence[int]) -> None:
        self._devices: list[list[Device]] = []
        self._held: list[dict[str, int]] = []
        for column in columns:
            ledger = nodes.ledgers.get(column)
            self._devices.append([] if ledger is None else [*ledger.whole, *ledger.slices])
            self._held.append({} if ledger is None else ledger.held)
        self.width = max(map(len, self._devices), default=0)
        self._rows = [{device.id: row for row, device in enumerate(mine)} for mine in self._devices]

    def free(self) -> Column:
        """Thousandths, (device, node); below 0 where more is held than there is."""
        found = np.zeros((self.width, len(self._devices)), dtype=np.int64)
        for place, devices in enumerate(self._devices):
            held = self._held[place]
            for row, device in enumerate(devices):
                found[row, place] = WHOLE_MILLI - held.get(device.id, 0)
        return found

    def amounts(self, place: int, text: str | None) -> list[int]:
        """What an element with these devices (as in AttemptRow) holds of each row of a node."""
        found = [0] * self.width
        rows = self._rows[place]
        for name, milli in () if text is None else parse_devices(text):
            if name in rows:  # else the node does not have it any more
                found[rows[name]] += milli
        return found

    def wanted(self, shape: Shape) -> Devices | None:
        """What an element asks for; None: no device."""
        if shape.gpu is None:
            return None
        serving = np.zeros((self.width, len(self._devices)), dtype=np.bool_)
        for place, devices in enumerate(self._devices):
            for row, device in enumerate(devices):
                serving[row, place] = kind_serves(shape, device.kind)
        return Devices(shape.gpu_count, shape.gpu_milli, serving)


def lacking(nodes: NodeColumns, shape: Shape, columns: Column) -> Column:
    """What these nodes lack of the devices that a shape asks for, in thousandths of all of it."""
    if shape.gpu is None:
        return np.zeros(len(columns), dtype=np.int64)
    serves = serving_kinds(nodes, shape)
    if shape.gpu.slice is not None:
        free = np.zeros(len(columns), dtype=np.int64)
        for kind, of_kind in nodes.slices_free.items():
            if serves[kind]:
                free += of_kind[columns]
    else:
        devices = np.where(serves[nodes.device_kind[columns]], nodes.device_free[columns], 0)
        if shape.shares:
            best = np.maximum(devices.max(axis=1), 0)
            return np.maximum(shape.gpu_milli - best, 0) * 1000 // shape.gpu_milli
        free = (devices >= WHOLE_MILLI).sum(axis=1)
    return np.maximum(shape.gpu_count - free, 0) * 1000 // shape.gpu_count
