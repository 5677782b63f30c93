"""Nodes as columns of numbers: what filters, scores and policies read.

Arrays grow by doubling, so that ten thousand nodes are added in linear time; what is read are views of
their used part. Texts (labels, taints, states) are kept once each, and columns hold their codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from towline.core.entries import Node
from towline.core.placement.ledger import Kind, Ledger
from towline.core.placement.shape import Shape

Column = NDArray[np.int64]
Mask = NDArray[np.bool_]

CPU, MEMORY, PIDS, DISK = range(4)
RESOURCES = 4
UNLIMITED: Final = 2**60
"""The disk of a node that does not limit it."""

Number = TypeVar("Number", bound=np.generic)
Values = tuple[str, ...]

_FIRST_SIZE = 64


class Coded:
    """One property of all nodes: a column of codes, and the distinct values that they stand for.

    A value is a tuple of texts: none where the node does not have the property.
    """

    def __init__(self, size: int) -> None:
        self.codes: NDArray[np.int32] = np.zeros(size, dtype=np.int32)
        self.values: list[Values] = [()]
        self._code: dict[Values, int] = {(): 0}
        self._with_text: dict[str, list[int]] = {}

    def grow(self, size: int) -> None:
        self.codes = grown(self.codes, size, 0)

    def put(self, column: int, value: Values) -> None:
        code = self._code.get(value)
        if code is None:
            code = self._code[value] = len(self.values)
            self.values.append(value)
            for text in dict.fromkeys(value):
                self._with_text.setdefault(text, []).append(code)
        self.codes[column] = code

    def at(self, column: int) -> Values:
        return self.values[self.codes.item(column)]

    def containing(self, texts: Iterable[str]) -> Mask:
        """For each distinct value: whether it has one of these texts."""
        table = np.zeros(len(self.values), dtype=np.bool_)
        for text in texts:
            table[self._with_text.get(text, [])] = True
        return table

    def where(self, accepts: Callable[[Values], bool]) -> Mask:
        """For each distinct value: what ``accepts`` says of it."""
        return np.fromiter(map(accepts, self.values), dtype=np.bool_, count=len(self.values))


class NodeColumns:
    """All nodes of a pool; ``n`` of them. Amounts are milli-CPUs, bytes, pids, thousandths of devices."""

    def __init__(self) -> None:
        self.entries: list[Node] = []
        self.size = _FIRST_SIZE
        """Columns that there is room for."""
        self.free_amounts: NDArray[np.int64] = np.zeros((RESOURCES, self.size), dtype=np.int64)
        self.all_amounts: NDArray[np.int64] = np.zeros((RESOURCES, self.size), dtype=np.int64)
        self.versions: Column = np.zeros(self.size, dtype=np.int64)
        self.state = Coded(self.size)
        self.taints = Coded(self.size)
        self.names = Coded(self.size)
        """A node's name and its id."""
        self.can_run = Coded(self.size)
        """The runtimes that work on a node."""
        self.labels: dict[str, Coded] = {}
        self.runtimes: dict[str, Coded] = {}
        """By runtime: ``("runs", what it protects …)``, or ``("fails", why)``."""
        self.device_free: NDArray[np.int64] = np.full((self.size, 1), -1, dtype=np.int64)
        self.device_kind: NDArray[np.int64] = np.full((self.size, 1), -1, dtype=np.int64)
        self.device_kinds = Coded(self.size)
        """The kinds that a node has, as texts of their numbers."""
        self.kinds: list[Kind] = []
        self.slices_free: dict[int, Column] = {}
        """By kind of MIG slice: how many of each node are free."""
        self.slices_all: dict[int, Column] = {}
        self.serving: dict[Shape, Mask] = {}
        """By shape: which kinds of devices may be given to it, as ``serving_kinds`` remembers it."""
        self.ledgers: dict[int, Ledger] = {}
        """By column, of nodes that have or had devices."""
        self.gpu_models: list[str] = []
        self._gpu_count: Column = np.zeros(self.size, dtype=np.int64)
        self._gpu_model: Column = np.full(self.size, -1, dtype=np.int64)
        self._gpu_memory: Column = np.zeros(self.size, dtype=np.int64)

    # --- what policies read: arrays of n, never copied ------------------------------------------------
    @property
    def n(self) -> int:
        return len(self.entries)

    @property
    def free_cpu_milli(self) -> Column:
        return self.free_amounts[CPU, : self.n]

    @property
    def free_memory_bytes(self) -> Column:
        return self.free_amounts[MEMORY, : self.n]

    @property
    def free_pids(self) -> Column:
        return self.free_amounts[PIDS, : self.n]

    @property
    def free_disk_bytes(self) -> Column:
        return self.free_amounts[DISK, : self.n]

    @property
    def capacity_cpu_milli(self) -> Column:
        return self.all_amounts[CPU, : self.n]

    @property
    def capacity_memory_bytes(self) -> Column:
        return self.all_amounts[MEMORY, : self.n]

    @property
    def capacity_pids(self) -> Column:
        return self.all_amounts[PIDS, : self.n]

    @property
    def capacity_disk_bytes(self) -> Column:
        return self.all_amounts[DISK, : self.n]

    @property
    def gpu_free_milli(self) -> NDArray[np.int64]:
        """[n, d]: what is free of each device; −1 where a node has no such device. Slices are not in it."""
        return self.device_free[: self.n]

    @property
    def gpu_count(self) -> Column:
        """Devices, slices left out."""
        return self._gpu_count[: self.n]

    @property
    def gpu_model(self) -> Column:
        """The model of a node's first device, as its place in ``gpu_models``; −1 without devices."""
        return self._gpu_model[: self.n]

    @property
    def gpu_memory_bytes(self) -> Column:
        """The memory of a node's first device; 0 without devices."""
        return self._gpu_memory[: self.n]

    @property
    def version(self) -> Column:
        """A number that rises with every change of the node."""
        return self.versions[: self.n]

    # --- growing, and single values -------------------------------------------------------------------
    def reserve(self, size: int) -> None:
        """Have room for so many columns."""
        if size <= self.size:
            return
        self.size = size = max(size, 2 * self.size)
        self.free_amounts = grown(self.free_amounts.T, size, 0).T.copy()
        self.all_amounts = grown(self.all_amounts.T, size, 0).T.copy()
        self.versions = grown(self.versions, size, 0)
        self.device_free = grown(self.device_free, size, -1)
        self.device_kind = grown(self.device_kind, size, -1)
        self._gpu_count = grown(self._gpu_count, size, 0)
        self._gpu_model = grown(self._gpu_model, size, -1)
        self._gpu_memory = grown(self._gpu_memory, size, 0)
        self.slices_free = {kind: grown(free, size, 0) for kind, free in self.slices_free.items()}
        self.slices_all = {kind: grown(count, size, 0) for kind, count in self.slices_all.items()}
        named = (*self.labels.values(), *self.runtimes.values())
        for coded in (self.state, self.taints, self.names, self.can_run, self.device_kinds, *named):
            coded.grow(size)

    def coded(self, named: dict[str, Coded], name: str) -> Coded:
        """The column of this name, made where it is new."""
        if name not in named:
            named[name] = Coded(self.size)
        return named[name]

    def put_devices(self, column: int, ledger: Ledger) -> None:
        """Take over what a node's devices are."""
        width = len(ledger.whole)
        if width > self.device_free.shape[1]:
            more = ((0, 0), (0, max(width, 2 * self.device_free.shape[1]) - self.device_free.shape[1]))
            self.device_free = np.pad(self.device_free, more, constant_values=-1)
            self.device_kind = np.pad(self.device_kind, more, constant_values=-1)
        self.device_kind[column] = -1
        for at, device in enumerate(ledger.whole):
            self.device_kind[column, at] = self.kind_number(device.kind)
        kinds = dict.fromkeys(device.kind for device in (*ledger.whole, *ledger.slices))
        self.device_kinds.put(column, tuple(str(self.kind_number(kind)) for kind in kinds))
        first = ledger.whole[0].kind if ledger.whole else None
        for count in self.slices_all.values():
            count[column] = 0
        for device in ledger.slices:
            self.slices_all[self.kind_number(device.kind)][column] += 1
        self._gpu_count[column] = width
        self._gpu_model[column] = -1 if first is None else self._model_number(first.model)
        self._gpu_memory[column] = 0 if first is None else first.memory_bytes
        self.put_free_devices(column, ledger)

    def put_free_devices(self, column: int, ledger: Ledger) -> None:
        """Take over what is free of a node's devices."""
        free_milli = ledger.free_milli()
        self.device_free[column] = free_milli + [-1] * (self.device_free.shape[1] - len(free_milli))
        if not self.slices_free:
            return
        for free in self.slices_free.values():
            free[column] = 0
        for kind, count in ledger.free_slices().items():
            self.slices_free[self.kind_number(kind)][column] = count

    def kind_number(self, kind: Kind) -> int:
        """The place of a kind of device in ``kinds``, where it is put if it is new."""
        if kind not in self.kinds:
            self.kinds.append(kind)
            if kind.slice is not None:
                self.slices_free[len(self.kinds) - 1] = np.zeros(self.size, dtype=np.int64)
                self.slices_all[len(self.kinds) - 1] = np.zeros(self.size, dtype=np.int64)
        return self.kinds.index(kind)

    def _model_number(self, model: str) -> int:
        if model not in self.gpu_models:
            self.gpu_models.append(model)
        return self.gpu_models.index(model)


def grown(array: NDArray[Number], size: int, fill: int) -> NDArray[Number]:
    """The array with its first axis made longer."""
    longer = np.full((size, *array.shape[1:]), fill, dtype=array.dtype)
    longer[: len(array)] = array
    return longer
