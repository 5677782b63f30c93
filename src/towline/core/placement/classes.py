"""Nodes that have the same left, put together: what is true of one of them for packing is true of all.

A class is a kind of device with what is free: CPUs, memory, and thousandths of each device, whichever
device it is. In a pool of ten thousand nodes there are a few hundred. A class that no node is in any more
is remembered for a while: ends and starts lead back to it.
"""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

from towline.core.placement.columns import CPU, MEMORY, Column, NodeColumns, grown

KEPT_EMPTY = 1024
"""So many classes that no node is in are remembered; the one that has been empty longest leaves first."""

_FIRST_SIZE = 64
_DEVICES_FROM = 3
"""The place in a class's numbers from which on they are about devices."""


class NodeClasses:
    """Classes by number. A number is given to another class once its own is forgotten: ``version`` then
    rises, and is 0 for numbers never given."""

    def __init__(self) -> None:
        self.of: Column = np.zeros(0, dtype=np.int64)
        """By column: the class of a node, −1 before it was looked at."""
        self.n = 0
        self.size = _FIRST_SIZE
        self.nodes: Column = np.zeros(self.size, dtype=np.int64)
        """How many nodes are in a class."""
        self.version: Column = np.zeros(self.size, dtype=np.int64)
        self.device_kind: Column = np.zeros(self.size, dtype=np.int64)
        """The kind of a node's first device, as in ``NodeColumns.device_kind``."""
        self.cpu_milli: Column = np.zeros(self.size, dtype=np.int64)
        self.memory_bytes: Column = np.zeros(self.size, dtype=np.int64)
        self.gpu_milli: NDArray[np.int64] = np.zeros((self.size, 1), dtype=np.int64)
        """[class, device]: thousandths free, the most first; 0 where there are no more devices."""
        self._known: dict[bytes, int] = {}
        self._keys: list[bytes] = []
        self._empty: dict[int, None] = {}

    def leave(self, view: NodeColumns, columns: Column) -> Column:
        """These nodes have changed: take them out. Returns the classes of those that were in one."""
        self._make_room(view)
        before = self.of[columns]
        left = before[before >= 0]
        np.subtract.at(self.nodes, left, 1)
        for number in dict.fromkeys(left.tolist()):
            if not self.nodes[number]:
                self._empty[number] = None
        return left

    def enter(self, view: NodeColumns, columns: Column) -> Column:
        """Put nodes in, by what they have free now. Returns the classes that are new."""
        rows = _numbers(view, columns)
        distinct, members = rows, np.arange(len(rows))
        if len(rows) > 1:
            distinct, members = np.unique(rows, axis=0, return_inverse=True)
        new: list[int] = []
        found = [self._number(row, new) for row in distinct.tolist()]
        now = np.array(found, dtype=np.int64)[members]
        self.of[columns] = now
        np.add.at(self.nodes, now, 1)
        return np.array(new, dtype=np.int64)

    def move(self, view: NodeColumns, column: int) -> tuple[int, bool]:
        """One node, which is in a class, has changed: its class now, and whether that is new.

        What ``leave`` and ``enter`` do, without the cost of arrays.
        """
        before = self.of.item(column)
        self._make_room(view)
        left = self.nodes.item(before) - 1
        self.nodes[before] = left
        if not left:
            self._empty[before] = None
        free = view.device_free[column].tolist()
        free.sort(reverse=True)
        row = [
            view.device_kind.item(column, 0),
            view.free_amounts.item(CPU, column),
            view.free_amounts.item(MEMORY, column),
            *(max(milli, 0) for milli in free),
        ]
        new: list[int] = []
        now = self._number(row, new)
        self.of[column] = now
        self.nodes[now] += 1
        return now, bool(new)

    def _number(self, row: list[int], new: list[int]) -> int:
        """The class with these numbers, made where there is none."""
        # Without the zeros of devices that it does not have: others may have more of them one day.
        key = array("q", row).tobytes().rstrip(b"\0")
        number = self._known.get(key)
        if number is not None:
            self._empty.pop(number, None)
            return number
        if len(self._empty) > KEPT_EMPTY:
            number = next(iter(self._empty))
            del self._empty[number], self._known[self._keys[number]]
            self._keys[number] = key
        else:
            number = self.n
            self.n += 1
            self._keys.append(key)
            if number == self.size:
                self._grow(2 * self.size)
        self._known[key] = number
        self.version[number] += 1
        self.device_kind[number], self.cpu_milli[number], self.memory_bytes[number] = row[:_DEVICES_FROM]
        self.gpu_milli[number, : len(row) - _DEVICES_FROM] = row[_DEVICES_FROM:]
        new.append(number)
        return number

    def _make_room(self, view: NodeColumns) -> None:
        if len(self.of) < view.size:
            self.of = grown(self.of, view.size, -1)
        more = view.device_free.shape[1] - self.gpu_milli.shape[1]
        if more > 0:
            self.gpu_milli = np.pad(self.gpu_milli, ((0, 0), (0, more)))

    def _grow(self, size: int) -> None:
        self.size = size
        self.nodes, self.version = grown(self.nodes, size, 0), grown(self.version, size, 0)
        self.device_kind = grown(self.device_kind, size, 0)
        self.cpu_milli = grown(self.cpu_milli, size, 0)
        self.memory_bytes = grown(self.memory_bytes, size, 0)
        self.gpu_milli = grown(self.gpu_milli, size, 0)


def _numbers(view: NodeColumns, columns: Column) -> NDArray[np.int64]:
    """[node, number]: what makes the nodes of a class equal."""
    free = view.device_free[columns]
    rows = np.empty((len(columns), _DEVICES_FROM + free.shape[1]), dtype=np.int64)
    rows[:, 0] = view.device_kind[columns, 0]
    rows[:, 1] = view.free_cpu_milli[columns]
    rows[:, 2] = view.free_memory_bytes[columns]
    # The most first: what is free is 0 or above, what is no device stands as −1.
    np.negative(free, out=free)
    free.sort(axis=1)
    np.minimum(free, 0, out=free)
    np.negative(free, out=rows[:, _DEVICES_FROM:])
    return rows
