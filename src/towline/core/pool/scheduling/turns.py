"""Whose turn it is: for one pass, a heap of the queues at each level of the tree that have candidates.

After each placement only the ranks on the way from its queue to the top have changed, so a turn
costs the depth of the tree times the logarithm of the number of siblings.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heapreplace

from towline.core.queues.amounts import NOTHING, Amounts
from towline.core.queues.tree import GUARANTEED, Queue, Rank

Place = tuple[Rank, Queue]


class Turns:
    """``leaves`` are the queues with candidates; each level's next one is the top of its heap."""

    def __init__(self, capacity: list[int], leaves: Iterable[Queue]) -> None:
        self._capacity = capacity
        self._heaps: dict[Queue | None, list[Place]] = {}
        members: dict[Queue | None, dict[Queue, None]] = {}
        for leaf in leaves:
            for queue in leaf.path:
                members.setdefault(queue.parent, {})[queue] = None
        self._fill(None, members)

    def _fill(self, parent: Queue | None, members: dict[Queue | None, dict[Queue, None]]) -> None:
        heap: list[Place] = []
        for queue in members.get(parent, ()):
            if queue in members:
                self._fill(queue, members)
            heap.append((self._rank(queue), queue))
        heapify(heap)
        self._heaps[parent] = heap

    def _rank(self, queue: Queue) -> Rank:
        """A queue below whose guarantee nobody is, itself or one of its candidates, waits behind."""
        own = queue.rank(self._capacity, NOTHING, 0)
        below = self._heaps.get(queue)
        return _raised(own, below[0][0]) if below else own

    def first(self) -> Queue | None:
        """The queue without queues below it whose turn it is; None when no queue has candidates."""
        heap = self._heaps[None]
        if not heap:
            return None
        queue = heap[0][1]
        while (heap := self._heaps.get(queue)) is not None:
            queue = heap[0][1]
        return queue

    def run(self, queue: Queue, asked: Amounts, most: int) -> int:
        """How many elements in a row ``queue``, whose turn it is, takes before another one is next:
        1 to ``most``."""
        if self._is_alone(queue):
            return max(1, most)
        if most <= 1 or not self._first_after(queue, asked, 1):
            return 1
        lo, hi = 1, 2  # it is still first after ``lo`` of them
        while hi < most and self._first_after(queue, asked, hi):
            lo, hi = hi, 2 * hi
        hi = min(hi, most)
        while hi - lo > 1:
            middle = (lo + hi) // 2
            if self._first_after(queue, asked, middle):
                lo = middle
            else:
                hi = middle
        # The element that makes another queue the next one is itself still taken.
        return min(most, lo + 1)

    def _is_alone(self, leaf: Queue) -> bool:
        """Whether no other queue has candidates, on any level above it."""
        return all(len(self._heaps[queue.parent]) == 1 for queue in leaf.path)

    def _first_after(self, leaf: Queue, asked: Amounts, count: int) -> bool:
        """Whether it is still the queue's turn once it holds ``count`` elements more."""
        below: Rank | None = None
        for queue in leaf.path:
            rank = queue.rank(self._capacity, asked, count)
            if below is not None:
                rank = _raised(rank, below)
            heap = self._heaps[queue.parent]
            second = min(heap[1:3], default=None)
            if second is not None and second[0] < rank:
                return False
            below = rank
        return True

    def taken(self, leaf: Queue) -> None:
        """``leaf``, whose turn it was, holds more than before."""
        for queue in leaf.path:
            heap = self._heaps[queue.parent]
            if len(heap) > 1:
                heapreplace(heap, (self._rank(queue), queue))
            else:
                heap[0] = (self._rank(queue), queue)

    def drop(self, leaf: Queue) -> None:
        """``leaf``, whose turn it was, has no candidate left."""
        for queue in leaf.path:
            heap = self._heaps[queue.parent]
            if queue is leaf or not self._heaps[queue]:
                heappop(heap)
            else:
                heapreplace(heap, (self._rank(queue), queue))


def _raised(own: Rank, below: Rank) -> Rank:
    """The rank of a queue with ``below`` as its first candidate's: a guarantee counts at every level."""
    if below[0] == GUARANTEED and (own[0] != GUARANTEED or below[1] < own[1]):
        return GUARANTEED, below[1], own[2]
    return own
