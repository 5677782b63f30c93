"""Limits by key: at most so many elements with one key are active at once, of whatever jobs.

A key belongs to its namespace. Of the tasks that name it and have not ended, the strictest ``max``
holds. Tasks that could go but for their key are set aside here, so that a pass never looks at them
again before somebody gives the key back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.core.placement.shape import Shape
from towline.core.queues.bucket import Bucket
from towline.core.queues.tree import Queue

if TYPE_CHECKING:
    from towline.core.entries import Task


class KeyLimit:
    """One key: who names it, how many hold it, and who waits for it alone."""

    __slots__ = ("_wanted", "holders", "key", "most", "namespace", "parked")

    def __init__(self, namespace: str, key: str) -> None:
        self.namespace = namespace
        self.key = key
        self.holders = 0
        self.most = 0
        """The strictest ``max`` among the tasks that name the key."""
        self._wanted: dict[int, int] = {}
        self.parked: dict[tuple[Queue, Shape], Bucket] = {}

    def join(self, most: int) -> None:
        self._wanted[most] = self._wanted.get(most, 0) + 1
        self.most = min(self._wanted)

    def leave(self, most: int) -> bool:
        """A task that named it has ended; returns whether nobody names it any more."""
        self._wanted[most] -= 1
        if not self._wanted[most]:
            del self._wanted[most]
        self.most = min(self._wanted, default=0)
        return not self._wanted

    @property
    def room(self) -> int:
        """How many elements more may start. Lost attempts that were taken back may have exceeded it."""
        return max(0, self.most - self.holders)

    def fork(self) -> KeyLimit:
        """A copy that may be changed, without those who wait."""
        other = KeyLimit(self.namespace, self.key)
        other.holders, other.most = self.holders, self.most
        other._wanted = dict(self._wanted)
        return other

    def unpark(self) -> list[Task]:
        """The first task in the order of each queue and shape: one of them may have the key now."""
        found: list[Task] = []
        for at, bucket in list(self.parked.items()):
            task = bucket.head()
            if task is not None:
                bucket.pop()
                found.append(task)
            if not bucket.heap:
                del self.parked[at]
        return found


class KeyLimits:
    """All keys that unfinished tasks name."""

    def __init__(self) -> None:
        self.keys: dict[tuple[str, str], KeyLimit] = {}
        self._waiting: dict[Queue, dict[KeyLimit, None]] = {}
        """Keys that tasks of a queue waited for when this was last looked at."""

    def join(self, task: Task) -> None:
        """A task comes in. One that names no key is left as it is."""
        limit = task.spec.limit
        if limit is None or task.limit is not None:
            return
        where = (task.job.row.namespace, limit.key)
        task.limit = self.keys.setdefault(where, KeyLimit(*where))
        task.limit.join(limit.max)

    def leave(self, task: Task) -> list[Task]:
        """A task has ended: its ``max`` does not count any more. Returns tasks to look at again."""
        held, limit = task.limit, task.spec.limit
        if held is None or limit is None:
            return []
        task.limit = None
        if held.leave(limit.max):
            del self.keys[(held.namespace, held.key)]
            return held.unpark()
        return held.unpark() if held.room else []

    def park(self, task: Task) -> None:
        """A task has to wait for its key, whatever else has room."""
        assert task.limit is not None
        at = (task.job.queue, task.shape)
        bucket = task.limit.parked.get(at)
        if bucket is None:
            bucket = task.limit.parked[at] = Bucket(task.shape, parked=True)
            self._waiting.setdefault(task.job.queue, {})[task.limit] = None
        bucket.push(task)

    def buckets(self, queue: Queue) -> list[Bucket]:
        """What waits in a queue for keys alone."""
        found: list[Bucket] = []
        waiting = self._waiting.get(queue, {})
        for limit in list(waiting):
            buckets = [bucket for (of, _), bucket in limit.parked.items() if of is queue]
            if not buckets:
                del waiting[limit]
            found += buckets
        return found
