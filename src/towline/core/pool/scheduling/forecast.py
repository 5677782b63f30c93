"""When something that is queued will start, as far as anybody can say: an estimate for ``tow why``.

What is before it in its queue starts in order, on one machine as large as the pool, as what runs there
ends when it is expected to. A queue that has rivals gets its fair share and no more until their work
would be done. Nodes come in
once: the element itself starts no sooner than one of those near it has room. The work is bounded: of
very many attempts a sample is looked at, and after ``MOST_STEPS`` starts the rest of the line is taken
to move on as fast as what was before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import NamedTuple

from towline.core.backfill import NEVER_MS
from towline.core.entries import Task
from towline.core.pool.scheduling.reserving import Reserving
from towline.core.pool.state import PoolState
from towline.core.queues.amounts import SCALE, Amounts, dominant
from towline.core.queues.tree import BOUNDLESS, Queue
from towline.core.queues.views import busy, entitled

MOST_STEPS = 2000
MOST_RUNNING = 2000
FURTHEST_MS = 3650 * 86_400_000
"""Nobody is told of a start that is further away."""

End = tuple[int, Amounts, int, bool]
"""(when, what is given back, how many elements, whether they are of the queue in question)."""


class Ahead(NamedTuple):
    """``number`` equal elements in the line; ``length_ms`` each."""

    asks: Amounts
    number: int
    length_ms: int


def expected_start(pool: PoolState, task: Task, before: Iterable[Task], own_before: int) -> int | None:
    """Milliseconds since 1970. ``before``: the tasks of its queue that are before it, in order;
    ``own_before``: elements of its own before the one in question. None where lengths are not known."""
    found: list[Ahead] = []
    for other in before:
        pool.foresight.look(other)
        if other.expected is None:
            return None
        found.append(Ahead(other.asks, other.placeable, other.expected.mean_ms))
    if own_before:
        pool.foresight.look(task)
        if task.expected is None:
            return None
        found.append(Ahead(task.asks, own_before, task.expected.mean_ms))
    machine = _Machine(pool, task.job.queue)
    for ahead in found:
        if not machine.start(ahead):
            return None
    at_ms = machine.when(task.asks)
    if at_ms is None or at_ms - pool.now_ms > FURTHEST_MS:
        return None
    if pool.columns.room(task.shape, 1, task.spread):
        return at_ms
    on_nodes = Reserving(pool).earliest(task)
    return None if on_nodes is None else max(at_ms, on_nodes)


class _Machine:
    """The pool as one machine, from now on."""

    def __init__(self, pool: PoolState, queue: Queue) -> None:
        self.now_ms = self._begin_ms = pool.now_ms
        self._capacity = pool.capacity
        held = [sum(level.held[at] for level in pool.queues.top) for at in range(len(pool.capacity))]
        self._free = [has - holds for has, holds in zip(pool.capacity, held, strict=True)]
        self._mine = list(queue.held)
        self._active = queue.active
        self._most, self._most_active = _bounds(queue)
        self._share = _fair_share(pool, queue)
        self._rivals_until = NEVER_MS
        if self._share is not None:
            self._rivals_until = self.now_ms + _work_of_others(pool, queue) // (SCALE - self._share)
        self._ends: list[End] = list(_running(pool, queue))
        heapify(self._ends)
        self._steps = self._started = 0
        self._pace: tuple[int, int] | None = None
        """(milliseconds, work that was started in them), once no step is left."""

    def start(self, ahead: Ahead) -> bool:
        """Let these start as early as they can. False: they never can, as far as is known."""
        left = ahead.number
        while left:
            if self._steps >= MOST_STEPS:
                return self._move_on(ahead, left)
            self._steps += 1
            count = min(left, self._room(ahead.asks))
            if count:
                self._change(ahead.asks, count, mine=True)
                heappush(self._ends, (self.now_ms + ahead.length_ms, ahead.asks, count, True))
                self._started += self._work(ahead, count)
                left -= count
            elif not self._next_end():
                return False
        return True

    def _move_on(self, ahead: Ahead, count: int) -> bool:
        """The rest of the line goes at the pace at which work was started until now."""
        if self._pace is None:
            self._pace = self.now_ms - self._begin_ms, max(self._started, 1)
        passed_ms, started = self._pace
        self.now_ms += passed_ms * self._work(ahead, count) // started
        return self.now_ms - self._begin_ms < FURTHEST_MS

    def _work(self, ahead: Ahead, count: int) -> int:
        return max(dominant(ahead.asks, self._capacity)[0], 1) * ahead.length_ms * count

    def when(self, asks: Amounts) -> int | None:
        """When one more of these can start behind what has started."""
        while not self._room(asks):
            if not self._next_end():
                return None
        return self.now_ms

    def _room(self, asks: Amounts) -> int:
        """How many fit now: of the pool, under the queue's maxima, and within its share."""
        room = BOUNDLESS if self._most_active is None else self._most_active - self._active
        for at, amount in enumerate(asks):
            if amount:
                room = min(room, self._free[at] // amount)
                room = min(room, (self._most[at] - self._mine[at]) // amount)
        size = dominant(asks, self._capacity)[0]
        if self._share is not None and size and self._active and self.now_ms < self._rivals_until:
            # As the pass does, it lets the last one pass the share.
            left = self._share - dominant(self._mine, self._capacity)[0]
            room = min(room, -(-left // size))
        return max(room, 0)

    def _next_end(self) -> bool:
        if not self._ends or self._ends[0][0] >= NEVER_MS:
            return False
        ends_at, asks, count, mine = heappop(self._ends)
        self.now_ms = max(self.now_ms, ends_at)
        self._change(asks, -count, mine=mine)
        return True

    def _change(self, asks: Amounts, count: int, *, mine: bool) -> None:
        for at, amount in enumerate(asks):
            self._free[at] -= amount * count
            self._mine[at] += amount * count * mine
        self._active += count * mine


def _running(pool: PoolState, queue: Queue) -> Iterator[End]:
    """What runs, an attempt each; of very many every so manieth, which then stands for those beside it."""
    every = max(1, -(-len(pool.attempts) // MOST_RUNNING))
    for attempt in islice(pool.attempts.values(), 0, None, every):
        if attempt.state == "lost":
            continue
        task = pool.task_of(attempt)
        began_at = attempt.started_at or attempt.assigned_at
        ends_at = pool.foresight.end_of(task, began_at, pool.now_ms)
        yield ends_at, task.asks, every, task.job.queue is queue


def _bounds(queue: Queue) -> tuple[list[int], int | None]:
    """The most that a queue may hold of each resource, and of elements, beside what others hold now."""
    most = [BOUNDLESS] * len(queue.held)
    active: int | None = None
    for level in queue.path:
        for at, maximum in level.maximum.items():
            most[at] = min(most[at], maximum - level.held[at] + queue.held[at])
        if level.max_active is not None:
            free = level.max_active - level.active + queue.active
            active = free if active is None else min(active, free)
    return most, active


def _fair_share(pool: PoolState, queue: Queue) -> int | None:
    """What its weight gives a queue, in ``SCALE``; None where nobody else has anything to place."""
    if all(other is queue for queues in pool.backlog.shapes.values() for other in queues):
        return None
    share = entitled(pool.queues, queue, busy(pool.queues, pool.backlog) | set(queue.path))
    return None if share >= SCALE else share


def _work_of_others(pool: PoolState, queue: Queue) -> int:
    """What other queues have to place, in ``SCALE`` x milliseconds; endless where a length is not known."""
    work = 0
    for task in pool.backlog.tasks():
        if task.job.queue is not queue:
            if task.expected is None:
                return NEVER_MS * SCALE
            work += dominant(task.asks, pool.capacity)[0] * task.expected.mean_ms * task.placeable
    return work
