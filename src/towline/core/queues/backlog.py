"""Tasks with placeable elements, by shape and queue, each bucket in order.

Tasks of one shape fit or do not fit together, and a shape that found no room anywhere is closed
until some node has more to give. So a pass looks at the head of each bucket of a shape that is
open, and its cost is that of what it places plus the buckets that it touches, however many tasks
are queued.
"""

from __future__ import annotations

from heapq import heappop

from towline.core.entries import Task
from towline.core.placement.shape import Shape
from towline.core.queues.bucket import Bucket, has_again
from towline.core.queues.foresight import Foresight
from towline.core.queues.limits import KeyLimits
from towline.core.queues.ordering import Line
from towline.core.queues.tree import Queue
from towline.core.queues.usage import Usages


class Backlog:
    """The tasks that have something to place. A task is in it once at most (``in_backlog``)."""

    def __init__(self, usages: Usages, limits: KeyLimits, foresight: Foresight, capacity: list[int]) -> None:
        self._usages = usages
        self._foresight = foresight
        self._limits = limits
        self._capacity = capacity
        self.shapes: dict[Shape, dict[Queue, Bucket]] = {}
        self.lines: dict[Queue, Line] = {}
        self.closed: dict[Shape, None] = {}
        """Shapes that fitted on no node when they were last asked for; nothing was given back since."""

    def add(self, task: Task) -> None:
        """Put a task in; one that is in already, or has nothing to place, is left."""
        if not task.in_backlog and (task.fresh or task.again):
            task.in_backlog = True
            self._foresight.recount(task)
            self.put(task)

    def put(self, task: Task) -> None:
        """Put a task at its place in the order, which it may have left before."""
        queue = task.job.queue
        line = self.lines.get(queue)
        if line is None:
            line = self.lines[queue] = Line(queue, self._usages, self._foresight, self._capacity)
        task.parked = False
        task.key = line.key(task)
        queues = self.shapes.setdefault(task.shape, {})
        bucket = queues.get(queue)
        if bucket is None:
            bucket = queues[queue] = Bucket(task.shape)
        bucket.push(task)
        if bucket.heap[0][1] is task:
            # It fits nowhere, but what is behind it may not pass it: the next pass reserves for it.
            self.closed.pop(task.shape, None)

    def drop(self, queue: Queue, shape: Shape) -> None:
        """Forget a bucket that has run empty."""
        queues = self.shapes.get(shape)
        if queues is not None and queue in queues:
            del queues[queue]
            if not queues:
                del self.shapes[shape]
                self.closed.pop(shape, None)

    def restore(self, queue: Queue, bucket: Bucket) -> None:
        """Take a bucket back that ran empty for a while."""
        self.shapes.setdefault(bucket.shape, {})[queue] = bucket

    def open_shapes(self) -> list[Shape]:
        """Shapes that may have room and have tasks."""
        closed = self.closed
        return [shape for shape in self.shapes if shape not in closed]

    def forget(self, queue: Queue) -> None:
        """A queue without tasks is gone."""
        self.lines.pop(queue, None)
        for shape in list(self.shapes):
            self.drop(queue, shape)

    def reorder(self) -> None:
        """All keys are to be made anew in the next pass."""
        for line in self.lines.values():
            line.length = 0
            line.as_of_ms = 0

    def renew(self, queue: Queue, now_ms: int) -> bool:
        """Make the keys of a queue anew, where the time since then allows for it; whether it did."""
        line = self.lines[queue]
        if not line.due(now_ms):
            return False
        buckets = self._buckets(queue)
        line.renew(now_ms, sum(len(bucket.heap) for bucket in buckets))
        for bucket in buckets:
            bucket.renew(line)
        return True

    def rekey(self, queue: Queue) -> None:
        """Give all tasks of a queue the keys that they have by its line now."""
        for bucket in self._buckets(queue):
            bucket.renew(self.lines[queue])

    def _buckets(self, queue: Queue) -> list[Bucket]:
        buckets = [queues[queue] for queues in self.shapes.values() if queue in queues]
        return buckets + self._limits.buckets(queue)

    def first_closed(self, queue: Queue) -> Task | None:
        """The first task of a queue, in its order, of those whose shapes fit nowhere."""
        found = [self.shapes[shape][queue] for shape in self.closed if queue in self.shapes.get(shape, {})]
        heads = [task for bucket in found if (task := bucket.head()) is not None]
        return min(heads, key=lambda task: task.key, default=None)

    def park(self, task: Task) -> None:
        """A task waits for its key alone: it is out of the way until somebody gives the key back."""
        assert task.limit is not None
        task.parked = True
        self._limits.park(task)

    def tasks(self) -> list[Task]:
        """All tasks in it, in order of their queues and keys; for explanations and checks."""
        buckets = [bucket for queues in self.shapes.values() for bucket in queues.values()]
        buckets += [bucket for limit in self._limits.keys.values() for bucket in limit.parked.values()]
        found = [task for bucket in buckets for task in bucket.tasks()]
        return sorted(found, key=lambda task: (task.job.queue.seq, task.key))


def take_again(task: Task) -> int | None:
    """The lowest index that is queued again and due, taken out."""
    return heappop(task.again) if has_again(task) else None


def take_fresh(task: Task, most: int) -> list[int]:
    """Up to ``most`` indexes that leave the array now, lowest first."""
    if task.pending:
        return []
    if task.by_element:
        return [index for lo, hi in task.ready.take(most) for index in range(lo, hi + 1)]
    taken: list[int] = []
    while len(taken) < most and task.next <= task.last:
        if task.early and task.early.first() == task.next:
            _, hi = next(task.early.ranges())
            task.early.remove(task.next, hi)
            task.next = hi + 1
            continue
        end = task.early.first() if task.early else task.last + 1
        upto = min(end, task.next + most - len(taken))
        taken.extend(range(task.next, upto))
        task.next = upto
    return taken
