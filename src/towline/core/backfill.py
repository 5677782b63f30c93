"""Reservations for what does not fit yet, and what may start before it without delaying it.

EASY backfilling (Lifka, "The ANL/IBM SP Scheduling System", JSSPP 1995) over many nodes, where an
element runs on one node: the first elements in the order that fit nowhere each get the earliest
(time, node) at which they fit, given when what runs there is expected to end. What comes behind them
may start on any other node; on theirs only where it ends in time, or leaves them enough room.

If lengths are true, no reservation is ever delayed by what starts before it. Where an attempt
outlives its expected length, ``Expected.total_ms`` gives it another, and a later pass another
reservation.

How a pass uses it (nothing here outlives a pass):

1. ``timetable = Timetable(nodes.free, releases)``, with the releases of the nodes in question.
2. Elements that fit start in order. For each start: ``timetable.start(asked, column, ends_at)``.
3. The first that fits nowhere: ``timetable.reserve(asked, allowed)``. None: no node will ever have
   room by what is expected, so nothing has to wait for it.
4. For those behind, the nodes where they fit are narrowed by ``timetable.open_to(asked, ends_at)``.

Amounts are the resources of placement, in its units and order: ``(resource, node)`` in columns. Devices
are resources of their own, a row each behind the others, so that a reservation is for devices that will
be free together and not for thousandths that add up (``Devices``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.int64]
Mask = NDArray[np.bool_]

NEVER_MS = 1 << 62
"""The end of what may run for ever."""


class Releases(NamedTuple):
    """What runs, an attempt each (or equal attempts of one end together), in any order.

    ``columns``: the node, shape (n,). ``ends_at``: when it is expected to end, milliseconds, (n,);
    later than now. ``amounts``: what it then gives back, (resource, n).
    """

    columns: Column
    ends_at: Column
    amounts: Column


class Devices(NamedTuple):
    """What an element asks for of a node's devices: ``number`` of them with ``milli`` thousandths each.

    ``serving``: (device, node), those that it may be given; the devices are the last rows of amounts.
    """

    number: int
    milli: int
    serving: Mask


class Reservation(NamedTuple):
    """An element may start on the node in ``column`` at ``at_ms``, and holds it from then on.

    ``asked`` includes the devices that are kept for it: some that will do, not those that it has to get.
    """

    column: int
    at_ms: int
    asked: tuple[int, ...]
    spare: tuple[int, ...]
    """What is free on the node at that time beside it: room for what runs past ``at_ms``."""


class Timetable:
    """The nodes of a pass as they become free. Deterministic: equal times go to the node that is left
    with the least of what the element asks for, then to the lowest column."""

    def __init__(self, free: Column, releases: Releases) -> None:
        """``free``: (resource, node), copied; what is free now."""
        self.reservations: list[Reservation] = []
        self._free = free.copy()
        self._columns = [releases.columns]
        self._ends_at = [releases.ends_at]
        self._amounts = [releases.amounts]

    def start(self, asked: Sequence[int], column: int, ends_at: int, count: int = 1) -> None:
        """Elements start now on a node. They must be allowed to: ``open_to``."""
        amounts = np.array(asked, dtype=np.int64) * count
        self._free[:, column] -= amounts
        self._columns.append(np.array([column], dtype=np.int64))
        self._ends_at.append(np.array([ends_at], dtype=np.int64))
        self._amounts.append(amounts[:, None])
        for at, held in enumerate(self.reservations):
            if held.column == column and ends_at > held.at_ms:
                spare = tuple(int(a - b) for a, b in zip(held.spare, amounts, strict=True))
                self.reservations[at] = held._replace(spare=spare)

    def reserve(
        self, asked: Sequence[int], allowed: Mask | None = None, devices: Devices | None = None
    ) -> Reservation | None:
        """The earliest place of an element that fits nowhere now, beside the reservations made before.

        ``asked``: nothing of devices, which ``devices`` says. ``allowed``: the nodes in question, (node,).
        None where no expected end makes room for it.
        """
        found = self._earliest(np.array([int(value) for value in asked], dtype=np.int64), allowed, devices)
        if found is None:
            return None
        at_ms, column, taken, spare = found
        reservation = Reservation(column, at_ms, taken, spare)
        self.reservations = [
            held._replace(spare=tuple(map(int.__sub__, held.spare, taken)))
            if held.column == column and held.at_ms >= at_ms
            else held
            for held in self.reservations
        ]
        self.reservations.append(reservation)
        return reservation

    def open_to(self, asked: Sequence[int], ends_at: int) -> Mask:
        """The nodes, (node,), on which an element that ends then delays no reservation if it starts now.
        Whether it fits there is not asked here."""
        mask = np.ones(self._free.shape[1], dtype=np.bool_)
        for held in self.reservations:
            if ends_at > held.at_ms and any(a > b for a, b in zip(asked, held.spare, strict=True)):
                mask[held.column] = False
        return mask

    def may_start(self, asked: Sequence[int], column: int, ends_at: int) -> bool:
        """``open_to`` for one node."""
        return all(
            held.column != column or ends_at <= held.at_ms or all(map(int.__le__, asked, held.spare))
            for held in self.reservations
        )

    def room_beside(self, asked: Sequence[int], column: int, ends_at: int) -> int:
        """How many such elements may start on a node now by its reservations alone."""
        most = NEVER_MS
        for held in self.reservations:
            if held.column == column and ends_at > held.at_ms:
                fits = [spare // want for spare, want in zip(held.spare, asked, strict=True) if want]
                most = min(most, *fits) if fits else most
        return max(most, 0)

    def _earliest(
        self, asked: Column, allowed: Mask | None, devices: Devices | None
    ) -> tuple[int, int, tuple[int, ...], tuple[int, ...]] | None:
        """(time, node, what is taken of it from then on, what is spare beside that at the time)."""
        columns, ends_at, amounts = self._events(allowed)
        if not len(columns):
            return None
        new_node = columns[1:] != columns[:-1]
        firsts = np.flatnonzero(np.append(True, new_node))
        free = self._free[:, columns] + _sums_by_node(amounts, firsts)
        lasting = _least_from_here(free, firsts)
        # Of events of one node and time only the last counts: then all of them have happened.
        counts = np.append(new_node | (ends_at[1:] != ends_at[:-1]), True)
        fits = (lasting >= asked[:, None]).all(axis=0) & counts & (ends_at < NEVER_MS)
        if devices is not None:
            fits &= _will_do(lasting, columns, devices).sum(axis=0) >= devices.number
        at = np.flatnonzero(fits)
        if not len(at):
            return None
        left = np.where(asked[:, None] > 0, free[:, at] - asked[:, None], 0).sum(axis=0)
        best = int(at[np.lexsort((columns[at], left, ends_at[at]))[0]])
        taken = asked.copy()
        if devices is not None:
            taken[_kept(free, lasting, columns, best, devices)] = devices.milli
        spare = free[:, best] - taken
        return int(ends_at[best]), int(columns[best]), tuple(taken.tolist()), tuple(spare.tolist())

    def _events(self, allowed: Mask | None) -> tuple[Column, Column, Column]:
        """Releases, and reservations as what takes from their time on; by node, then by time."""
        held = self.reservations
        columns = np.concatenate([*self._columns, np.array([one.column for one in held], dtype=np.int64)])
        ends_at = np.concatenate([*self._ends_at, np.array([one.at_ms for one in held], dtype=np.int64)])
        taken = np.array([one.asked for one in held], dtype=np.int64).reshape(len(held), len(self._free))
        amounts = np.concatenate([*self._amounts, -taken.T], axis=1)
        order = np.lexsort((ends_at, columns))
        if allowed is not None:
            order = order[allowed[columns[order]]]
        return columns[order], ends_at[order], amounts[:, order]


def _sums_by_node(amounts: Column, firsts: Column) -> Column:
    """Running sums that begin anew at each node's first event."""
    sums = np.cumsum(amounts, axis=1)
    before = sums[:, firsts] - amounts[:, firsts]
    return sums - np.repeat(before, np.diff(np.append(firsts, amounts.shape[1])), axis=1)


def _least_from_here(free: Column, firsts: Column) -> Column:
    """At each event the least that is free then and at all later events of the same node."""
    least = np.empty_like(free)
    for lo, hi in pairwise([*firsts.tolist(), free.shape[1]]):
        least[:, lo:hi] = np.minimum.accumulate(free[:, lo:hi][:, ::-1], axis=1)[:, ::-1]
    return least


def _will_do(lasting: Column, columns: Column, devices: Devices) -> Mask:
    """(device, event): whether a device may be given and has enough free from then on."""
    return (lasting[len(lasting) - len(devices.serving) :] >= devices.milli) & devices.serving[:, columns]


def _kept(free: Column, lasting: Column, columns: Column, event: int, devices: Devices) -> list[int]:
    """The rows of the devices that are kept: those with the least that is left of them, then the first."""
    first = len(free) - len(devices.serving)
    rows = first + np.flatnonzero(_will_do(lasting[:, [event]], columns[[event]], devices)[:, 0])
    return sorted(rows.tolist(), key=lambda row: (int(free[row, event]), row))[: devices.number]
