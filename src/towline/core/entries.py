"""A pool in memory: jobs, their tasks, what is placed of them, and nodes.

Elements that were never placed have no object: a task's ``next``, ``early`` and ``ready`` stand
for them. Rows of the store serve as the objects of placed elements and attempts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from towline.core.arrays import IndexSet, Range
from towline.core.commands import AttemptKey
from towline.core.expected import Expected
from towline.core.placement.shape import Shape
from towline.core.queues.amounts import NOTHING, Amounts
from towline.core.queues.limits import KeyLimit
from towline.core.queues.policies.order import Item
from towline.core.queues.tree import Queue
from towline.core.queues.usage import Usage
from towline.core.rows import AttemptRow, ElementRow, JobRow, NodeRow, TaskRow
from towline.model.job import JobSpec, TaskSpec
from towline.model.states import ENDED, ElementState, JobState

GroupKey = tuple[int, ...]
"""A task's place in the order of its queue (see ``queues/ordering.py``); no two tasks have the same."""


@dataclass(slots=True, eq=False)
class Task:
    """A task of an unfinished job. ``pending`` counts plain needs that have not succeeded yet."""

    job: Job
    position: int
    name: str
    spec: TaskSpec
    first: int
    last: int
    next: int
    shape: Shape
    asks: Amounts
    """What one element holds of its queue."""
    pending: int
    dependents: list[int]
    each_needs: list[int]
    each_dependents: list[int]
    ready: IndexSet = field(default_factory=IndexSet)
    """With ``each``: indexes whose needs have succeeded and that have not left."""
    early: IndexSet = field(default_factory=IndexSet)
    """Without ``each``: indexes from ``next`` on that ended before they started."""
    placed: dict[int, ElementRow] = field(default_factory=dict[int, ElementRow])
    """Elements with a row that have not ended: active, or queued again."""
    again: list[int] = field(default_factory=list[int])
    """Heap of queued-again indexes whose backoff is over; entries may be stale."""
    active: int = 0
    spread: dict[int, int] = field(default_factory=dict[int, int])
    """Where elements are to be spread: how many are active on each node, by column."""
    ended: dict[str, IndexSet] = field(default_factory=lambda: {state: IndexSet() for state in ENDED})
    key: GroupKey = ()
    limit: KeyLimit | None = None
    """The key that its elements need, as long as the task has not ended."""
    in_backlog: bool = False
    parked: bool = False
    """It is in the backlog and waits for its key alone (see ``queues/limits.py``)."""
    known: int = -1
    """The version of what has been learnt that ``expected`` and ``item`` were made from."""
    expected: Expected | None = None
    item: Item | None = None
    """The task as the order of its queue sees it."""
    load: int = 1
    """The dominant share that one element is counted with in the pool's work; with ``longest_ms``."""
    longest_ms: int = 1
    counted: int = 0
    """Elements that stand in the pool's work as queued."""
    patient_until: int = 0
    image_digest: str | None = None
    """What its image was first resolved to: all its elements run that."""
    done: bool = False
    """The end of the task as a whole has been told and handed on."""

    def __lt__(self, _: Task) -> bool:
        """Asked in heaps where two entries have one key: one of them does not stand there any more, as it
        is from before its job had ended. Which comes first makes no difference."""
        return False

    @property
    def queue(self) -> Queue:
        return self.job.queue

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    @property
    def by_element(self) -> bool:
        return bool(self.each_needs)

    @property
    def has_ended(self) -> bool:
        return self.ended_count == self.size

    @property
    def ended_count(self) -> int:
        return sum(len(indexes) for indexes in self.ended.values())

    @property
    def unplaced(self) -> int:
        """Elements that have neither a row nor an end."""
        return self.size - len(self.placed) - self.ended_count

    @property
    def fresh(self) -> int:
        """Unplaced elements that may start now."""
        if self.pending:
            return 0
        if self.by_element:
            return len(self.ready)
        return self.last - self.next + 1 - len(self.early)

    @property
    def placeable(self) -> int:
        """How many elements may start now, at most: an entry of ``again`` may be stale."""
        return self.fresh + len(self.again)

    def unplaced_ranges(self, lo: int, hi: int) -> list[Range]:
        """The unplaced elements among ``lo`` to ``hi``, as ranges."""
        if not self.by_element:
            return self.early.missing(max(lo, self.next), hi)
        gone = [held for indexes in self.ended.values() for held in indexes.within(lo, hi)]
        gone += [(index, index) for index in self.placed if lo <= index <= hi]
        left: list[Range] = []
        at = lo
        for a, b in sorted(gone):
            if at < a:
                left.append((at, a - 1))
            at = max(at, b + 1)
        if at <= hi:
            left.append((at, hi))
        return left

    def unplaced_with_needs(self, lo: int, hi: int) -> list[Range]:
        """With ``each``: the unplaced elements among ``lo`` to ``hi`` all of whose needs have succeeded."""
        found = self.unplaced_ranges(lo, hi)
        for need in self.each_needs:
            succeeded = self.job.tasks[need].ended[ElementState.SUCCEEDED]
            found = [part for a, b in found for part in succeeded.within(a, b)]
        return found

    def leave_unplaced(self, lo: int, hi: int) -> None:
        """``lo`` to ``hi``, all unplaced, have ended: none of them starts any more."""
        if self.by_element:
            self.ready.remove(lo, hi)
            return
        self.early.add(lo, hi)
        if self.early.first() == self.next:
            _, end = next(self.early.ranges())
            self.early.remove(self.next, end)
            self.next = end + 1

    def come_back(self, again: IndexSet, unplaced: IndexSet) -> list[int]:
        """``again``, all of ``unplaced`` (what has ended without ever being placed), have not ended any
        more. Returns those that stand before something that was placed: ``next`` does not go back over
        rows, so they are to get rows of their own."""
        for indexes in self.ended.values():
            for lo, hi in again.ranges():
                indexes.remove(lo, hi)
        if self.by_element:
            return []  # which of them are ready depends on what they need
        # Nothing was placed of a task whose needs have not all succeeded.
        rows = [] if self.pending else unplaced.missing(self.first, self.next - 1)
        floor = rows[-1][1] + 1 if rows else self.first
        back = again.within(floor, self.next - 1)
        if back:
            self.early.add(back[0][0], self.next - 1)
            self.next = back[0][0]
        for lo, hi in again.within(self.next, self.last):
            self.early.remove(lo, hi)
        return [index for lo, hi in again.within(self.first, floor - 1) for index in range(lo, hi + 1)]

    def row(self) -> TaskRow:
        fresh = self.fresh
        return TaskRow(
            job=self.job.row.id,
            task=self.position,
            name=self.name,
            first=self.first,
            last=self.last,
            next=self.next,
            ready=self.pending == 0,
            waiting=self.unplaced - fresh,
            queued=fresh + len(self.placed) - self.active,
            active=self.active,
            succeeded=len(self.ended[ElementState.SUCCEEDED]),
            failed=len(self.ended[ElementState.FAILED]),
            cancelled=len(self.ended[ElementState.CANCELLED]),
            skipped=len(self.ended[ElementState.SKIPPED]),
            image_digest=self.image_digest,
        )


@dataclass(slots=True, eq=False)
class Job:
    """An unfinished (or quarantined) job."""

    row: JobRow
    spec: JobSpec
    tasks: list[Task]
    unfinished: int
    """Tasks that have not ended."""
    queue: Queue
    usage: Usage
    retried_at: int = 0
    """The number of the event with which parts of it were last run again under this leader."""

    @property
    def quarantined(self) -> bool:
        return self.row.state == JobState.QUARANTINED

    def task(self, name: str) -> Task | None:
        return next((task for task in self.tasks if task.name == name), None)

    def placed(self) -> Iterator[tuple[Task, ElementRow]]:
        for task in self.tasks:
            for index in sorted(task.placed):
                yield task, task.placed[index]


@dataclass(slots=True, eq=False)
class Node:
    """A node; ``column`` is its place in the placement's columns."""

    row: NodeRow
    column: int
    connected: bool
    heard_at: int
    """When it last said anything, or when this leader took over."""
    attempts: dict[AttemptKey, AttemptRow] = field(default_factory=dict[AttemptKey, AttemptRow])
    counted: Amounts = NOTHING
    """What of it stands in the pool's capacity."""
