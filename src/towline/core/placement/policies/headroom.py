"""Towline's own GPU policy: keep room for what is likely to come.

How many more elements of each kind could the whole pool still take? A placement lowers some of these
numbers. Its cost is what it takes of each kind's headroom, times a price that rises as headroom falls:

    cost = sum over kinds of  weight · frequency / headroom · (usable before − usable after)
         + DEVICE_PRICE / devices · (expected leftover of the device after − before)

The first part is the slope of a sum of logarithms of headrooms, so a kind with room for three more is
dear, and one that fits anywhere is cheap: scarce models, empty machines for elements with many devices,
and CPUs beside free devices are kept where they matter, without a rule for each. The price rises further
where more of a kind would come than there is room for, if what is free was asked for as until now. Every
sort of machine with several devices also counts as a kind that came once, so that machines stay empty for
a large element before the first one was seen. The second part fills shared devices so that what remains
of them is of use.

All of it is reckoned for classes of nodes with the same left (``classes.py``), and what an element of a
shape takes of a class is remembered: a placement changes the class of one node, and the prices.

Frequencies are learnt (``profile.py``): no workload has to be known beforehand. Docs and figures:
docs/decisions/0006-gpu-placement-score.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from towline.core.placement.classes import NodeClasses
from towline.core.placement.columns import Column, NodeColumns, Number, grown
from towline.core.placement.gpu_fit import least_level
from towline.core.placement.kinds import UNIT, Amounts, Kinds, Numbers
from towline.core.placement.leftovers import by_milli, expected_leftovers
from towline.core.placement.profile import GPUS_OF_KEY, Profile, Seen, kind_key
from towline.core.placement.shape import WHOLE_MILLI, Shape

SIZE_WEIGHT = -0.7
"""A kind's weight is its devices to this power."""
SORT_COUNT = 0.1
RESERVE = 2
"""Headroom is counted without the last two elements: they cost most."""
LEAST_HEADROOM = 0.05
SCARCE = 16
SCARCE_FROM, SCARCE_MOST = 0.5, 1
"""A price rises by so many times itself for what a kind's scarcity is above the first number, the second at
most. Scarcity: the elements of the kind that come until all devices are taken, to those that there is room
for."""
DEVICE_PRICE = 64
MAX_KINDS = 128
FIRST_LOOK = 32
"""The profile is looked at after so many elements with GPUs, and again whenever they have doubled."""
FIRST_GAMES, MORE_GAMES = 12, 5
CACHE_BYTES = 256 * 1024**2

_PRICE = 2.0**32
_MAX_PRICE = 2.0**28
_STEP = 32
_MOST_TAKEN = 2**15 - 1
_ALL_OF_IT: Column = np.array([WHOLE_MILLI], dtype=np.int64)


class _Rows:
    """What one element of a shape would take of each class: [class, kind], brought up to date when asked."""

    __slots__ = ("kinds", "level", "takes", "version")

    def __init__(self, size: int, kinds: int) -> None:
        self.takes: NDArray[np.int16] = np.zeros((size, _rounded(kinds)), dtype=np.int16)
        self.level: Column = np.zeros(size, dtype=np.int64)
        """For a share: what its device has free before."""
        self.version: Column = np.zeros(size, dtype=np.int64)
        """That of the class when it was looked at."""
        self.kinds = kinds

    def grow(self, size: int) -> None:
        """Have room for so many classes."""
        self.takes, self.level = grown(self.takes, size, 0), grown(self.level, size, 0)
        self.version = grown(self.version, size, 0)


class Headroom:
    """A policy with a memory, for the nodes of one pool. ``observe`` tells it what has been queued."""

    name = "headroom"
    moving = True
    """Prices move with every placement, so scores hold only until the next one."""

    def __init__(self) -> None:
        self.profile = Profile()
        self._forget()

    def _forget(self) -> None:
        self._view: NodeColumns | None = None
        self._kinds = Kinds()
        self._adopted: list[Seen | None] = []
        self._places: dict[Seen, int] = {}
        """Of the adopted ones."""
        self._counts: Numbers = np.zeros(0)
        self._halvings = self.profile.halvings
        self._weights: Numbers = np.zeros(0)
        self._folded: Numbers = np.zeros(0)
        self._sorts: dict[tuple[int, int, int], None] = {}
        self._classes = NodeClasses()
        self._devices: Numbers = np.zeros((0, 2, 0))
        """[class, 0 or 1, kind]: what its devices allow, as in ``kinds.py``."""
        self._usable: Numbers = np.zeros((0, 0))
        """[class, kind]"""
        self._version: Column = np.zeros(0, dtype=np.int64)
        """Of each node, when it was put into its class."""
        self._free: Column = np.zeros(0, dtype=np.int64)
        """Thousandths of devices that are free on a node of each class."""
        self._free_milli = 0
        """The same of all nodes together."""
        self._headroom: Numbers = np.zeros(0)
        self._known = 0
        self._rows: dict[Shape, _Rows] = {}
        self._leftovers: list[float] | None = None
        self._device_costs: NDArray[np.int64] = np.zeros(WHOLE_MILLI + 1, dtype=np.int64)
        self._next_look = FIRST_LOOK

    def observe(self, ask: Shape, count: int = 1) -> None:
        """So many elements of this shape have been queued."""
        seen = self.profile.observe(ask, count)
        if self._halvings != self.profile.halvings:
            self._halvings = self.profile.halvings
            self._recount()
        elif seen in self._places:
            self._counts[self._places[seen]] = seen.count

    def scores(self, view: NodeColumns, ask: Shape, columns: Column) -> Column:
        """The cost of one element on each of these nodes, with a minus sign."""
        self._follow(view)
        rows, classes = self._rows_of(ask), self._classes
        of_nodes = classes.of[columns]
        among = np.zeros(classes.n, dtype=np.bool_)
        among[of_nodes] = True
        asked = np.flatnonzero(among)
        stale = asked[rows.version[asked] != classes.version[asked]]
        if len(stale):
            self._take(ask, rows, stale, 0)
        takes = rows.takes.take(asked, axis=0)[:, : self._kinds.n].astype(np.float64)
        costs = (takes @ self._prices()).astype(np.int64)
        if ask.shares:
            level = rows.level[asked]
            costs += self._device_costs[level - ask.gpu_milli] - self._device_costs[level]
        scores = np.zeros(classes.n, dtype=np.int64)
        scores[asked] = -costs
        return scores[of_nodes]

    # --- what there is --------------------------------------------------------------------------------
    def _follow(self, view: NodeColumns) -> None:
        if self._view is not view:
            self._forget()
            self._view = view
        if len(self._version) < view.n:
            self._version = grown(self._version, view.size, -1)
        changed = np.flatnonzero(self._version[: view.n] != view.version)
        if len(changed):
            self._reclassify(view, changed)
        if view.n != self._known:
            self._known = view.n
            self._know_sorts(view, changed)
        if self.profile.total >= self._next_look:
            self._look_at_profile(view)

    def _reclassify(self, view: NodeColumns, columns: Column) -> None:
        """These nodes have changed: their classes, and the headroom with them."""
        classes = self._classes
        if len(columns) == 1 and self._version.item(columns.item()) >= 0:
            self._move(view, columns.item())
            return
        # Before others enter: they may be given the number of a class that is empty then.
        self._count(classes.leave(view, columns), -1)
        new = classes.enter(view, columns)
        if len(new):
            self._reckon(view, new, 0)
        self._count(classes.of[columns], 1)
        self._version[columns] = view.version[columns]

    def _count(self, numbers: Column, times: int) -> None:
        """A node of each of these classes has come (or gone, with −1)."""
        self._headroom += times * self._usable[numbers, : self._kinds.n].sum(axis=0)
        self._free_milli += times * int(self._free[numbers].sum())

    def _move(self, view: NodeColumns, column: int) -> None:
        """One node that was known has changed, as after every placement."""
        # Before it moves: it may be given the number of a class that is empty then.
        n, before = self._kinds.n, self._classes.of.item(column)
        self._headroom -= self._usable[before, :n]
        self._free_milli -= self._free.item(before)
        now, is_new = self._classes.move(view, column)
        if is_new:
            self._reckon(view, np.array([now], dtype=np.int64), 0)
        self._headroom += self._usable[now, :n]
        self._free_milli += self._free.item(now)
        self._version[column] = view.versions[column]

    def _reckon(self, view: NodeColumns, numbers: Column, first: int) -> None:
        """What nodes of these classes could take of kinds from ``first`` on."""
        classes, kinds = self._classes, self._kinds
        if len(self._usable) < classes.size:
            self._usable = grown(self._usable, classes.size, 0)
            self._devices = grown(self._devices, classes.size, 0)
            self._free = grown(self._free, classes.size, 0)
        free, device_kind = classes.gpu_milli[numbers], classes.device_kind[numbers]
        devices = kinds.of_devices(view, free, device_kind, first)
        cpu, memory = classes.cpu_milli[numbers], classes.memory_bytes[numbers]
        self._usable[numbers, first : kinds.n] = kinds.usable(devices, cpu, memory, first)
        self._devices[numbers, :, first : kinds.n] = devices
        self._free[numbers] = free.sum(axis=1)

    def _know_sorts(self, view: NodeColumns, columns: Column) -> None:
        """Each new sort of machine with several devices counts as a kind that came once."""
        several = columns[view.gpu_count[columns] > 1]
        sizes = zip(
            view.capacity_cpu_milli[several].tolist(),
            view.capacity_memory_bytes[several].tolist(),
            view.gpu_count[several].tolist(),
            strict=True,
        )
        new = [size for size in dict.fromkeys(sizes) if size not in self._sorts]
        new = new[: max(0, MAX_KINDS // 4 - len(self._sorts))]
        self._sorts.update(dict.fromkeys(new))
        found = [Amounts(cpu, memory, count, WHOLE_MILLI, None) for cpu, memory, count in new]
        self._adopt(view, found, [None] * len(found))

    # --- what is asked for ----------------------------------------------------------------------------
    def _look_at_profile(self, view: NodeColumns) -> None:
        """Take over kinds that have come since, and learn what devices will be left with."""
        self._next_look = max(2 * self.profile.total, FIRST_LOOK)
        new = [seen for seen in self.profile.largest_first() if seen not in self._places]
        room = MAX_KINDS - self._kinds.n
        self._adopt(view, [_amounts(seen.shape) for seen in new[:room]], list(new[:room]))
        self._fold(new[room:])
        games = FIRST_GAMES if self._leftovers is None else MORE_GAMES
        self._leftovers = expected_leftovers(self.profile.devices_by_milli(), self._leftovers, games)
        scale = DEVICE_PRICE / max(int(view.gpu_count.sum()), 1) * _PRICE * UNIT
        self._device_costs = by_milli(self._leftovers, scale)

    def _fold(self, others: list[Seen]) -> None:
        """Kinds that there is no column for count as the one most like them."""
        self._folded[:] = 0
        for other in others:
            key = kind_key(other.shape)
            alike = [
                (abs(seen.shape.cpu_milli - other.shape.cpu_milli), at)
                for at, seen in enumerate(self._adopted)
                if seen is not None and kind_key(seen.shape)[:GPUS_OF_KEY] == key[:GPUS_OF_KEY]
            ]
            if alike:
                self._folded[min(alike)[1]] += other.count

    def _adopt(self, view: NodeColumns, kinds: list[Amounts], seen: list[Seen | None]) -> None:
        if not kinds:
            return
        first, classes = self._kinds.n, self._classes
        self._kinds.add(kinds)
        self._places.update((one, first + at) for at, one in enumerate(seen) if one is not None)
        self._adopted += seen
        self._recount()
        weights = [round(1000 * kind_devices(kind) ** SIZE_WEIGHT) / 1000 for kind in kinds]
        self._weights = np.append(self._weights, weights)
        self._folded = np.append(self._folded, np.zeros(len(kinds)))
        self._usable = _wider(self._usable, self._kinds.n)
        self._devices = _wider(self._devices, self._kinds.n)
        self._reckon(view, np.arange(classes.n, dtype=np.int64), first)
        added = classes.nodes[: classes.n] @ self._usable[: classes.n, first : self._kinds.n]
        self._headroom = np.append(self._headroom, added)

    def _recount(self) -> None:
        counts = [SORT_COUNT if seen is None else seen.count for seen in self._adopted]
        self._counts = np.array(counts, dtype=np.float64)

    def _prices(self) -> Numbers:
        headroom = np.maximum(self._headroom / UNIT - RESERVE, LEAST_HEADROOM)
        counts = self._counts + self._folded
        prices = self._weights * counts / headroom * (_PRICE / max(self.profile.total, 1))
        scarcity = counts * (self._free_milli / max(self.profile.gpu_milli, 1)) / headroom
        prices *= 1 + SCARCE * np.minimum(np.maximum(scarcity - SCARCE_FROM, 0), SCARCE_MOST)
        return np.rint(np.minimum(prices, _MAX_PRICE))

    # --- what an element would take -------------------------------------------------------------------
    def _rows_of(self, ask: Shape) -> _Rows:
        rows = self._rows.pop(ask, None)
        if rows is None:
            rows = _Rows(self._classes.size, self._kinds.n)
            limit = max(CACHE_BYTES // max(rows.takes.nbytes, 1), 1)
            while len(self._rows) >= limit:
                self._rows.pop(next(iter(self._rows)))
        if len(rows.version) < self._classes.size:
            rows.grow(self._classes.size)
        if rows.kinds < self._kinds.n:
            self._widen(ask, rows)
        self._rows[ask] = rows
        return rows

    def _widen(self, ask: Shape, rows: _Rows) -> None:
        """Kinds have been added since: only their columns are new."""
        rows.takes = _wider(rows.takes, self._kinds.n)
        first, rows.kinds = rows.kinds, self._kinds.n
        known = np.flatnonzero((rows.version > 0) & (rows.version == self._classes.version))
        if len(known):
            self._take(ask, rows, known, first)

    def _take(self, ask: Shape, rows: _Rows, numbers: Column, first: int) -> None:
        """What an element takes of nodes of these classes, each of which has room for it."""
        kinds, classes = self._kinds, self._classes
        devices = self._devices.take(numbers, axis=0)[:, :, first : kinds.n]
        if ask.shares:
            level = rows.level[numbers] = least_level(classes.gpu_milli[numbers], ask.gpu_milli)
            devices += kinds.taken(level, ask.gpu_milli, 1, first)
        elif ask.whole:
            devices += kinds.taken(_ALL_OF_IT, WHOLE_MILLI, ask.gpu_count, first)
        cpu = classes.cpu_milli[numbers] - ask.cpu_milli
        usable = kinds.usable(devices, cpu, classes.memory_bytes[numbers] - ask.memory_bytes, first)
        takes = self._usable.take(numbers, axis=0)[:, first : kinds.n] - usable
        rows.takes[numbers, first : kinds.n] = np.minimum(takes, _MOST_TAKEN)
        rows.version[numbers] = classes.version[numbers]


def _amounts(shape: Shape) -> Amounts:
    return Amounts(shape.cpu_milli, shape.memory_bytes, shape.gpu_count, shape.gpu_milli, shape)


def kind_devices(kind: Amounts) -> float:
    return kind.gpu_count * kind.gpu_milli / WHOLE_MILLI


def _rounded(kinds: int) -> int:
    return -(-kinds // _STEP) * _STEP


def _wider(array: NDArray[Number], kinds: int) -> NDArray[Number]:
    """The array with room for so many kinds."""
    more = _rounded(kinds) - array.shape[-1]
    return np.pad(array, ((0, 0),) * (array.ndim - 1) + ((0, more),)) if more > 0 else array
