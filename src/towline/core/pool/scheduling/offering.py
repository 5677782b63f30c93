"""What a pool would make of a job that may come: for ``core/routing.py``, which compares pools.

Nothing changes, and nothing is looked at but columns of nodes and counters: the cost is that of the job's
different shapes times the nodes, whatever is queued. It is an estimate: reservations and shares are left
out, devices that several shapes want are divided by parts, and of a job with very many shapes only the
largest are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from towline.core.placement.columns import Column
from towline.core.placement.filters.gpus import elements_by_devices
from towline.core.placement.filters.resources import asked_of
from towline.core.placement.filters.standing import IS_OPEN, is_there
from towline.core.placement.shape import Shape, shape_of
from towline.core.pool.state import PoolState
from towline.core.queues.amounts import CPU, GPU, MEMORY, NAMES, SCALE, Amounts, asked_by, dominant
from towline.core.queues.changing import unknown
from towline.core.queues.tree import Queue
from towline.core.routing import UNSERVED, Offer
from towline.model.job import JobSpec

MOST_SHAPES = 8
"""So many different shapes of a job are looked at."""
LEAST = {CPU: 1000, MEMORY: 2**30, GPU: 1000}
"""What a pool counts as having at least, so that what is queued in one without nodes counts too."""


@dataclass(slots=True)
class Group:
    """All tasks of one shape. ``first``: their elements that need nothing else first; ``may_start``: those of
    them whose keys have room."""

    shape: Shape
    asks: Amounts
    first: int = 0
    may_start: int = 0


def offer(pool: PoolState, spec: JobSpec, namespace: str) -> Offer:
    """Pure, and quick."""
    if unknown(pool.queues, spec.queue)[0]:
        return Offer(pool=pool.name, fits=False, room=0.0, backlog=UNSERVED)
    queue = pool.queues.queues[spec.queue]
    groups = _groups(pool, spec, namespace)
    all_of_it = _largest(pool, groups)
    there = {group.shape: _columns(pool, group.shape) for group in all_of_it}
    fits = all(len(there[group.shape]) for group in all_of_it) and not any(
        above.never(group.asks) is not None for group in groups for above in queue.path
    )
    room = 0.0
    if fits:
        first = _largest(pool, [group for group in groups if group.first])
        for group in first:
            if group.shape not in there:
                there[group.shape] = _columns(pool, group.shape)
        room = min(_placed(pool, first, there), _allowed(queue, first))
    return Offer(pool=pool.name, fits=fits, room=room, backlog=backlog(pool))


def backlog(pool: PoolState) -> float:
    """What is queued and active, as the dominant share of what nodes that are ready have."""
    amounts = list(pool.foresight.waiting)
    for queue in pool.queues.top:
        for at, held in enumerate(queue.held):
            amounts[at] += held
    capacity = [max(pool.capacity[at], LEAST.get(at, 0)) for at in range(len(NAMES))]
    return dominant(amounts, capacity)[0] / SCALE


def _groups(pool: PoolState, spec: JobSpec, namespace: str) -> list[Group]:
    groups: dict[Shape, Group] = {}
    for task in spec.tasks.values():
        shape = shape_of(task, pool.silence.leased)
        group = groups.get(shape)
        if group is None:
            group = groups[shape] = Group(shape, asked_by(task.resources))
        if task.needs:
            continue
        count = 1 if task.array is None else task.array.size
        group.first += count
        if task.limit is not None:
            known = pool.limits.keys.get((namespace, task.limit.key))
            most = task.limit.max if known is None else min(task.limit.max, known.most)
            count = min(count, max(0, most - (0 if known is None else known.holders)))
        group.may_start += count
    return list(groups.values())


def _largest(pool: PoolState, groups: list[Group]) -> list[Group]:
    """Those that find room least easily, first: what asks for devices, then what asks for most."""

    def size(group: Group) -> tuple[int, int, int]:
        return group.asks[GPU], dominant(group.asks, pool.capacity)[0], group.shape.order

    return sorted(groups, key=size, reverse=True)[:MOST_SHAPES]


def _columns(pool: PoolState, shape: Shape) -> Column:
    """The nodes on which an element would fit if nothing else ran there."""
    nodes = pool.columns
    columns = np.arange(nodes.n, dtype=np.int64)
    columns = columns[is_there(nodes, columns)]
    for filter_ in nodes.rules.static:
        if filter_ is not IS_OPEN and len(columns):
            columns = columns[filter_.mask(nodes, shape, columns)]
    return columns


def _allowed(queue: Queue, groups: list[Group]) -> float:
    """The part of all these elements that the maxima of the queue, and of those above it, have room for."""
    count = sum(group.first for group in groups)
    asked = [sum(group.first * group.asks[at] for group in groups) for at in range(len(NAMES))]
    part = 1.0
    for above in queue.path:
        if above.max_active is not None:
            part = min(part, (above.max_active - above.active) / count)
        for at, maximum in above.maximum.items():
            if asked[at]:
                part = min(part, (maximum - above.held[at]) / asked[at])
    return max(0.0, part)


def _placed(pool: PoolState, groups: list[Group], there: dict[Shape, Column]) -> float:
    """The part of all these elements that what is free has room for, one shape after another."""
    nodes = pool.columns
    free = nodes.free_amounts[:, : nodes.n].copy()
    devices_gone: NDArray[np.float64] = np.zeros(nodes.n)
    placed = 0
    for group in groups:
        shape, columns = group.shape, there[group.shape]
        columns = columns[IS_OPEN.mask(nodes, shape, columns)]
        asked = np.array(asked_of(shape), dtype=np.int64)
        wanted = np.flatnonzero(asked)
        counts = (free[np.ix_(wanted, columns)] // asked[wanted, None]).min(axis=0)
        columns, counts = columns[counts > 0], counts[counts > 0]
        for filter_ in nodes.rules.further:
            passed = filter_.mask(nodes, shape, columns)
            columns, counts = columns[passed], counts[passed]
        by_devices: Column | None = None
        if shape.gpu is not None:
            by_devices = elements_by_devices(nodes, shape, columns)
            left = (by_devices * (1 - devices_gone[columns]) + 1e-9).astype(np.int64)
            counts = np.minimum(counts, left)
        before = np.cumsum(counts) - counts
        taken = np.clip(group.may_start - before, 0, counts)
        free[:, columns] -= asked[:, None] * taken
        if by_devices is not None:
            devices_gone[columns] += taken / by_devices
        placed += int(taken.sum())
    return placed / sum(group.first for group in groups)
