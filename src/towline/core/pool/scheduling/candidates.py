"""What may be placed next in one pass: the first task, in order, that its queues and its key allow."""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace

from towline.core.entries import GroupKey, Task
from towline.core.placement.shape import Shape
from towline.core.pool.scheduling import renewing
from towline.core.pool.scheduling.turns import Turns
from towline.core.pool.state import PoolState
from towline.core.queues.amounts import percent
from towline.core.queues.bucket import Bucket
from towline.core.queues.quotas import Quotas
from towline.core.queues.tree import Queue

Head = tuple[GroupKey, Bucket]

MOST_PASSED = 256
"""Tasks that a pass looks at in vain because of reservations, before it closes their shapes for itself."""


class Candidates:
    """The heads of all buckets whose shapes are open, queue by queue."""

    def __init__(self, pool: PoolState) -> None:
        self._pool = pool
        self._backlog = pool.backlog
        self._open: dict[Shape, None] = dict.fromkeys(pool.backlog.open_shapes())
        self._heads: dict[Queue, list[Head]] = {}
        self._quotas = Quotas()
        self._turn = 0
        self._passed: list[tuple[Bucket, Task]] = []
        self._behind: dict[Queue, None] = {}
        """Queues that stand in the order behind their reservation for this pass."""
        self._collect()
        self._turns = Turns(pool.capacity, self._heads)

    def _collect(self) -> None:
        backlog, heads = self._backlog, self._heads
        queues = {queue: None for shape in self._open for queue in backlog.shapes[shape]}
        for queue in renewing.due(backlog, queues, self._pool.now_ms):
            if backlog.renew(queue, self._pool.now_ms) and queue in self._pool.blocked:
                self._reserve_anew(queue)
        for shape in self._open:
            for queue, bucket in list(backlog.shapes[shape].items()):
                task = bucket.head()
                if task is None:
                    backlog.drop(queue, shape)
                else:
                    heads.setdefault(queue, []).append((task.key, bucket))
        for heap in heads.values():
            heapify(heap)

    def _reserve_anew(self, queue: Queue) -> None:
        """Time has changed the order: another task may be the first by now of those that find no room."""
        pool, first = self._pool, self._backlog.first_closed(queue)
        if first is not None and first is not pool.blocked[queue]:
            pool.unblock(queue)
            pool.block(first)

    def next(self) -> tuple[Task, int] | None:
        """The next task, and how many of its elements may start in a row. None ends the pass."""
        while self._open and (queue := self._turns.first()) is not None:
            heap = self._heads[queue]
            task = self._head(queue, heap)
            if task is None:
                self._turns.drop(queue)
                continue
            most = self._quotas.room(queue, task.asks)
            if not most:
                heappop(heap)
                continue
            if task.limit is not None:
                most = min(most, task.limit.room)
                if not most:
                    heap[0][1].pop()
                    self._backlog.park(task)
                    continue
            return task, self._turns.run(queue, task.asks, min(most, task.placeable))
        return None

    def _head(self, queue: Queue, heap: list[Head]) -> Task | None:
        """The first task of a queue whose shape is open; what has nothing to place any more is dropped."""
        while heap:
            key, bucket = heap[0]
            if bucket.shape not in self._open:
                heappop(heap)
                continue
            task = bucket.head()
            if task is None:
                heappop(heap)
                self._backlog.drop(queue, bucket.shape)
            elif task.key is not key:
                heapreplace(heap, (task.key, bucket))
            elif not self._stands_behind(queue, task):
                return task
            else:
                self._reorder(queue, heap)
        return None

    def _stands_behind(self, queue: Queue, task: Task) -> bool:
        """Whether it, and so the rest of its queue, is behind the queue's reservation, stands there in
        another order than before it, and has not been put into that one yet."""
        if self._pool.foresight.backfills is None or queue in self._behind:
            return False
        reserved = self._pool.blocked.get(queue)
        return reserved is not None and reserved is not task and reserved.key < task.key

    def _reorder(self, queue: Queue, heap: list[Head]) -> None:
        """The rest of a queue is behind its reservation: it stands in that order until the pass ends."""
        line = self._backlog.lines[queue]
        line.behind = True
        self._behind[queue] = None
        buckets = [bucket for _, bucket in heap]
        heap.clear()
        for bucket in buckets:
            bucket.renew(line)
            task = bucket.head()
            if task is not None:
                heap.append((task.key, bucket))
        heapify(heap)

    def taken(self, task: Task) -> None:
        """Elements of the task that ``next`` gave have been placed."""
        self._turn += 1
        self._turns.taken(task.job.queue)

    def close(self, shape: Shape) -> None:
        """There is no room for a shape on any node."""
        self._backlog.closed[shape] = None
        self._open.pop(shape, None)

    def pass_over(self, task: Task) -> None:
        """The task that ``next`` gave may not start before somebody's reservation: others of its shape
        may, if they are shorter."""
        queue = task.job.queue
        _, bucket = self._heads[queue][0]
        bucket.pop()
        self._passed.append((bucket, task))
        if len(self._passed) >= MOST_PASSED:
            self._open.pop(task.shape, None)

    def end(self) -> None:
        """The pass is over: who was passed over stands in line again."""
        for bucket, task in self._passed:
            bucket.push(task)
            self._backlog.restore(task.job.queue, bucket)
        for queue in self._behind:
            self._backlog.lines[queue].behind = False
            self._backlog.rekey(queue)

    def record(self, task: Task, nodes: int, before: Task | None) -> str:
        """Why the task that ``next`` gave is placed now, in a few words for ``tow why``."""
        queue = task.job.queue
        share = percent(queue.share(self._pool.capacity))
        text = f"queue {queue.name} at {share}; turn {self._turn + 1} of its pass; best of {nodes} nodes"
        if before is not None:
            text += f"; backfilled before {before.job.row.name}/{before.name}"
        return text
