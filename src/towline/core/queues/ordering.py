"""The order inside a queue: priority, then the namespace's usage, then what the pool's order says
(``policies/``; Towline's own goes by age and expected length).

What a key is made of changes with time; the keys of a queue are made anew together, from one time
and one reading of every namespace's usage, so that they always agree with one another.
"""

from __future__ import annotations

from towline.core.entries import GroupKey, Task
from towline.core.queues.foresight import Foresight
from towline.core.queues.tree import Queue
from towline.core.queues.usage import Usages

LEAST_MS = 1000
"""Keys stand for so long, and for a millisecond with every task: so ordering takes the same small part
of a processor however many are queued."""


class Line:
    """How the tasks of one queue stand in line. ``as_of_ms`` is the time that all keys are made from."""

    __slots__ = ("_capacity", "_foresight", "_usages", "_used", "as_of_ms", "behind", "length", "queue")

    def __init__(self, queue: Queue, usages: Usages, foresight: Foresight, capacity: list[int]) -> None:
        self.queue = queue
        self.as_of_ms = 0
        """Keys made before the first pass are of the beginning of time; that pass makes them anew."""
        self.behind = False
        """For the rest of a pass: what is to get a key stands behind the queue's reservation."""
        self.length = 0
        """Tasks when the keys were last made."""
        self._usages = usages
        self._foresight = foresight
        self._capacity = capacity
        self._used: dict[str, int] = {}

    def key(self, task: Task) -> GroupKey:
        """A task's key as of ``as_of_ms``."""
        job = task.job.row
        priority = min(job.priority, self.queue.max_priority)
        place = self._foresight.place(task, self.as_of_ms, behind=self.behind)
        return -priority, self._usage_of(task), *place, job.seq, task.position

    def _usage_of(self, task: Task) -> int:
        usage = task.job.usage
        used = self._used.get(usage.namespace)
        if used is None:
            used = usage.expected(self.as_of_ms, self._capacity, self._usages.half_life_ms)
            self._used[usage.namespace] = used
        return used

    def due(self, now_ms: int) -> bool:
        """Whether the keys are to be made anew."""
        return now_ms - self.as_of_ms >= max(LEAST_MS, self.length)

    def renew(self, now_ms: int, length: int) -> None:
        """Take another time and other readings for all keys; whoever calls makes them anew."""
        self.as_of_ms = now_ms
        self._used.clear()
        self.length = length
