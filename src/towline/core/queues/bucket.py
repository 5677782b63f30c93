"""Tasks of one shape in one queue that stand alike: all may be looked at, or all wait for one key."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from towline.core.placement.shape import Shape

if TYPE_CHECKING:
    from towline.core.entries import GroupKey, Task
    from towline.core.queues.ordering import Line


class Bucket:
    """A heap in order of the tasks' keys; what does not stand here any more is dropped when it comes up."""

    __slots__ = ("heap", "parked", "shape")

    def __init__(self, shape: Shape, *, parked: bool = False) -> None:
        self.shape = shape
        self.parked = parked
        """Whether its tasks wait for a key alone (see ``limits.py``)."""
        self.heap: list[tuple[GroupKey, Task]] = []

    def push(self, task: Task) -> None:
        heappush(self.heap, (task.key, task))

    def pop(self) -> Task:
        return heappop(self.heap)[1]

    def head(self) -> Task | None:
        """The first task that still has something to place."""
        heap = self.heap
        while heap:
            key, task = heap[0]
            if not self._stands(key, task):
                heappop(heap)
            elif task.job.quarantined or not (task.fresh or has_again(task)):
                heappop(heap)
                task.in_backlog = task.parked = False
            else:
                return task
        return None

    def tasks(self) -> Iterator[Task]:
        """All tasks that stand here, in no order; some may have nothing to place any more."""
        return (task for key, task in self.heap if self._stands(key, task))

    def renew(self, line: Line) -> None:
        """Give every task the key that it has by its line now."""
        tasks = list(self.tasks())
        for task in tasks:
            task.key = line.key(task)
        self.heap = [(task.key, task) for task in tasks]
        heapify(self.heap)

    def _stands(self, key: GroupKey, task: Task) -> bool:
        # With another key it stands somewhere else too: a key object is made for one entry.
        return key is task.key and task.in_backlog and task.parked is self.parked


def has_again(task: Task) -> bool:
    """Whether an element is queued again and due; drops stale entries from the heap's top."""
    again = task.again
    while again:
        element = task.placed.get(again[0])
        if element is not None and element.state == "queued" and element.not_before is None:
            return True
        heappop(again)
    return False
