"""Reservations in a pass: the first in a queue that fits nowhere is not delayed by what is behind it.

Each queue's first blocked task has one, at most ``MOST`` in a pool, in the order of the pass (the
method is that of ``core/backfill.py``). Nothing is computed before something behind a blocked task
could start; then the ``NODES`` nodes that lack the least for it are looked at, and on those what is
behind may only start where it ends in time or leaves enough room. Devices count one by one
(``devices.py``). The node of the pass before is always among those that are looked at: so a
reservation moves only to where it is no later.
"""

from __future__ import annotations

from itertools import islice

import numpy as np

from towline.core.backfill import NEVER_MS, Column, Mask, Releases, Reservation, Timetable
from towline.core.entries import Task
from towline.core.placement.filters.misfits import FILTERS
from towline.core.placement.filters.resources import asked_of
from towline.core.pool.scheduling.devices import DeviceRows, lacking
from towline.core.pool.state import PoolState
from towline.core.queues.amounts import NOTHING
from towline.core.queues.quotas import Quotas
from towline.core.queues.tree import Queue

MOST = 4
NODES = 16
Room = list[tuple[int, int]]


class Reserving:
    """One pass. ``pool.blocked`` holds the first blocked task of each queue, also from passes before."""

    def __init__(self, pool: PoolState) -> None:
        self._pool = pool
        self._table: Timetable | None = None
        self._devices = DeviceRows(pool.columns, ())
        self._places: dict[int, int] = {}
        """Of the nodes that are looked at: column to place in the timetable."""
        self.reserved: dict[Task, Reservation] = {}
        for queue, task in list(pool.blocked.items()):
            # With a task that has ended, its place in the backlog has gone too.
            if not task.in_backlog or task.parked or not task.placeable or task.job.quarantined:
                pool.unblock(queue)

    def note(self, task: Task) -> None:
        """A task fits on no node: the first of its queue waits for a reservation."""
        blocked, queue = self._pool.blocked, task.job.queue
        before = blocked.get(queue)
        if before is not None and task.key < before.key:
            self._pool.unblock(queue)  # it was the first when it was looked at
        if queue not in blocked and len(blocked) < MOST:
            self._pool.block(task)
            self._table = None

    def ahead(self, task: Task) -> Task | None:
        """A blocked task that is before this one in the order."""
        for queue, other in self._pool.blocked.items():
            if other is not task and self._is_before(queue, other, task):
                return other
        return None

    def _is_before(self, queue: Queue, other: Task, task: Task) -> bool:
        mine = task.job.queue
        if queue is mine:
            return other.key < task.key
        # Where their ways to the top part, the one with the lower share is first.
        above = set(mine.path)
        theirs = [level for level in queue.path if level not in above][-1]
        shared = set(queue.path)
        ours = [level for level in mine.path if level not in shared][-1]
        capacity = self._pool.capacity
        return theirs.rank(capacity, NOTHING, 0) <= ours.rank(capacity, NOTHING, 0)

    def narrow(self, task: Task, rooms: Room, most: int) -> Room:
        """Of nodes with room, those where ``task`` delays no reservation of somebody before it."""
        if self.ahead(task) is None:
            return rooms
        self._prepare()
        if not any(column in self._places for column, _ in rooms):
            return rooms
        allowed = self._allowed(task, rooms)
        if sum(count for _, count in allowed) < min(most, sum(count for _, count in rooms)):
            allowed = self._allowed(task, self._pool.columns.room(task.shape, None, task.spread))
        return allowed

    def _allowed(self, task: Task, rooms: Room) -> Room:
        ends_at = self._pool.foresight.ends_at(task, self._pool.now_ms)
        found: Room = []
        for column, count in rooms:
            place = self._places.get(column)
            if place is not None:
                count = min(count, self._beside(task, column, place, ends_at))
            if count:
                found.append((column, count))
        return found

    def _beside(self, task: Task, column: int, place: int, ends_at: int) -> int:
        """How many elements of a task may start on a node by its reservations: of those that would hold
        devices beyond one, one after another."""
        assert self._table is not None
        count = self._table.room_beside(self._asked(task, place, None), place, ends_at)
        if not count or count == NEVER_MS or task.shape.gpu is None or not self._devices.width:
            return count
        asked = self._asked(task, place, self._pool.columns.next_devices(column, task.shape))
        return min(1, self._table.room_beside(asked, place, ends_at))

    def started(self, task: Task, column: int, count: int) -> None:
        """Elements of a task have been placed on a node."""
        if self._pool.blocked.get(task.job.queue) is task:
            self._pool.unblock(task.job.queue)
            self._table = None
            return
        place = self._places.get(column)
        if self._table is not None and place is not None:
            ends_at = self._pool.foresight.ends_at(task, self._pool.now_ms)
            if task.shape.gpu is None or not self._devices.width:
                self._table.start(self._asked(task, place, None), place, ends_at, count)
                return
            for attempt in islice(reversed(self._pool.node_at(column).attempts.values()), count):
                self._table.start(self._asked(task, place, attempt.devices), place, ends_at)

    def end(self) -> None:
        """The pass is over: where reservations stand is remembered for the next one."""
        if self._table is not None:
            columns = list(self._places)
            self._pool.reserved = {task: columns[held.column] for task, held in self.reserved.items()}

    def expect(self, task: Task) -> tuple[int, int] | None:
        """(column, time) that a blocked task waits for; None where it has no reservation."""
        self._prepare()
        held = self.reserved.get(task)
        if held is None:
            return None
        column = next(column for column, place in self._places.items() if place == held.column)
        return column, held.at_ms

    def earliest(self, task: Task) -> int | None:
        """When one of the nodes near a task has room for it, whoever is before it; None: not as far as
        is known."""
        near = self._near(task)
        columns = near.tolist()
        self._devices = DeviceRows(self._pool.columns, columns if task.shape.gpu is not None else ())
        table = Timetable(self._free(columns), self._releases(columns))
        self._table = None
        held = table.reserve(self._asked(task, 0, None), None, self._devices.wanted(task.shape))
        return None if held is None else held.at_ms

    def _prepare(self) -> None:
        if self._table is not None:
            return
        nodes = {task: self._near(task) for task in self._pool.blocked.values()}
        columns = sorted({int(column) for near in nodes.values() for column in near})
        self._places = {column: place for place, column in enumerate(columns)}
        by_device = any(task.shape.gpu is not None for task in nodes)
        self._devices = DeviceRows(self._pool.columns, columns if by_device else ())
        self._table = Timetable(self._free(columns), self._releases(columns))
        self.reserved = {}
        for task, near in nodes.items():
            mask: Mask = np.zeros(len(columns), dtype=np.bool_)
            mask[[self._places[int(column)] for column in near]] = True
            if not len(near) or not Quotas().room(task.job.queue, task.asks):
                continue
            held = self._table.reserve(self._asked(task, 0, None), mask, self._devices.wanted(task.shape))
            if held is not None:
                self.reserved[task] = held

    def _near(self, task: Task) -> Column:
        """The nodes that could take an element if they were empty, and lack the least for it now."""
        nodes, shape = self._pool.columns, task.shape
        columns = np.arange(nodes.n, dtype=np.int64)
        for filter_ in nodes.rules.filters:
            if filter_.static:
                columns = columns[filter_.mask(nodes, shape, columns)]
        for filter_ in nodes.rules.filters[len(FILTERS) :]:
            # A user's own may go by the load or not: what it rejects now is looked at only where it
            # rejects everything.
            passing = filter_.mask(nodes, shape, columns)
            columns = columns[passing] if passing.any() else columns
        if not len(columns):
            return columns
        asked = np.array(asked_of(shape), dtype=np.int64)[:, None]
        missing = np.maximum(asked - nodes.free_amounts[:, columns], 0)
        parts = missing * 1000 // np.maximum(nodes.all_amounts[:, columns], 1)
        least = np.maximum(parts.max(axis=0), lacking(nodes, shape, columns))
        near = columns[np.argsort(least, kind="stable")[:NODES]]
        before = self._pool.reserved.get(task)
        if before is not None and before in columns and before not in near:
            near = np.append(near, before)
        return near

    def _free(self, columns: list[int]) -> Column:
        free = self._pool.columns.free_amounts[:, columns]
        return np.vstack([free, self._devices.free()]) if self._devices.width else free

    def _releases(self, columns: list[int]) -> Releases:
        pool = self._pool
        places: list[int] = []
        ends: list[int] = []
        amounts: list[tuple[int, ...]] = []
        for place, column in enumerate(columns):
            for attempt in pool.node_at(column).attempts.values():
                task = pool.task_of(attempt)
                places.append(place)
                began_at = attempt.started_at or attempt.assigned_at
                ends.append(pool.foresight.end_of(task, began_at, pool.now_ms))
                amounts.append(self._asked(task, place, attempt.devices))
        rows = np.array(amounts, dtype=np.int64).reshape(len(places), len(NOTHING) + self._devices.width).T
        return Releases(np.array(places, dtype=np.int64), np.array(ends, dtype=np.int64), rows)

    def _asked(self, task: Task, place: int, devices: str | None) -> tuple[int, ...]:
        """What an element with these devices holds of a node, in the order of the timetable's rows."""
        if not self._devices.width:
            return asked_of(task.shape)
        return *asked_of(task.shape), *self._devices.amounts(place, devices)
