"""What a pool holds in memory, and what the current batch has changed of it."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappush
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from towline.core.commands import AttemptKey, Order
from towline.core.entries import Job, Node, Task
from towline.core.expected import Key
from towline.core.leadership import attempts_before
from towline.core.lease import Silence
from towline.core.placement.choosing.rules import Rules
from towline.core.placement.nodes import Nodes
from towline.core.queues.amounts import NAMES, NOTHING, Amounts
from towline.core.queues.backlog import Backlog
from towline.core.queues.foresight import Foresight
from towline.core.queues.limits import KeyLimits
from towline.core.queues.tree import Queue, QueueTree
from towline.core.queues.usage import Usage, Usages
from towline.core.rows import (
    AttemptRow,
    Changes,
    ElementRow,
    EventRow,
    KeyRow,
    QueueRow,
    RangeRow,
    SpecRow,
)

Row = TypeVar("Row", bound=Struct)

Timer = tuple[int, str, int, int, int]
"""(when, job, task, index, attempt number) of a retry whose backoff ends then."""

ENDED_JOBS_KEPT = 10_000


class PoolState:
    """The pool's memory. The functions of this package change it; ``Pool`` is their one caller."""

    def __init__(
        self, name: str, term: int, rules: Rules | None = None, silence: Silence | None = None
    ) -> None:
        self.name = name
        self.term = term
        self.before = attempts_before(term)
        """Attempts up to this number are of the time before the store's terms were raised: it may not know
        later ones that there were."""
        self.silence = silence or Silence()
        self.event_no = 0
        self.job_seq = 0
        self.jobs: dict[str, Job] = {}
        self.nodes: dict[str, Node] = {}
        self.columns = Nodes(rules)
        self.capacity = [0] * len(NAMES)
        """What nodes that are ready have in all, as queues count it."""
        self.queues = QueueTree()
        self.usages = Usages(self.columns.rules.half_life_ms)
        self.limits = KeyLimits()
        self.foresight = Foresight(self.capacity, self.columns.rules.order)
        self.more_room = False
        """Whether any node has more to give than in the last pass."""
        self.backlog = Backlog(self.usages, self.limits, self.foresight, self.capacity)
        self.blocked: dict[Queue, Task] = {}
        """Each queue's first task that fitted on no node when it was last looked at, for a few queues."""
        self.reserved: dict[Task, int] = {}
        """The column on which each of them had its reservation when that was last computed."""
        self.timers: list[Timer] = []
        self.attempts: dict[AttemptKey, AttemptRow] = {}
        """Attempts that have not ended, and the lost ones whose element is queued again."""
        self.ended_jobs: dict[str, int] = {}
        """Jobs that ended under this leader, the newest last, with the number of the last event by then:
        a submission that is repeated in the moment its job ends must not make it again, and no job runs
        again from a record that is older than its end."""
        self.ended_forgotten = 0
        """The highest number that was dropped from ``ended_jobs``."""
        self.batch = Batch()
        self.now_ms = 0

    # --- what elements hold -----------------------------------------------------------------------
    def hold(self, task: Task, column: int, count: int) -> None:
        """``count`` elements of a task became active on a node: their queue, key and namespace hold it."""
        job = task.job
        job.queue.hold(task.asks, count)
        if task.limit is not None:
            task.limit.holders += count
        usage = job.usage
        usage.settle(self.now_ms, self.capacity, self.usages.half_life_ms)
        usage.hold(task.asks, count)
        self.batch.usages[usage.namespace] = usage
        if task.shape.spread is not None:
            task.spread[column] = task.spread.get(column, 0) + count

    def give_back(self, task: Task, column: int, attempt: AttemptRow) -> None:
        """An element of a task is not active on a node any more."""
        self.columns.give(column, task.shape, attempt.devices)
        self.foresight.work.ended(task.load, attempt.assigned_at + task.longest_ms)
        self.more_room = True
        self.hold(task, column, -1)
        if task.limit is not None and task.limit.room:
            self.look_again(task.limit.unpark())

    def hand_on(self, task: Task) -> None:
        """A task whose turn it was to take its key does not want it any more: others may."""
        if task.limit is not None and task.limit.parked and task.limit.room:
            self.look_again(task.limit.unpark())

    def look_again(self, tasks: Iterable[Task]) -> None:
        """Tasks that waited for a key alone, and may have it now."""
        for task in tasks:
            self.backlog.put(task)

    def task_of(self, attempt: AttemptRow) -> Task:
        return self.jobs[attempt.job].tasks[attempt.task]

    def observe(self, task: Task) -> None:
        """A task has come: policies learn from it what is asked for."""
        self.columns.rules.observe(task.shape, task.size)

    def learn(self, task: Task, run_ms: int) -> None:
        """An attempt has run for so long, and has ended by itself or at its timeout."""
        for kind in self.foresight.learn(task, run_ms):
            self.batch.durations[kind] = None

    def block(self, task: Task) -> None:
        """The first task of its queue that fits on no node waits for a reservation from now on."""
        self.blocked[task.job.queue] = task
        for queue in task.job.queue.path:
            queue.blocked += 1

    def unblock(self, at: Queue) -> None:
        self.reserved.pop(self.blocked.pop(at), None)
        for queue in at.path:
            queue.blocked -= 1

    def node_at(self, column: int) -> Node:
        return self.columns.entries[column]

    def reorder(self) -> None:
        """Queues have changed: what they allow, and the priorities that count in them."""
        self.backlog.reorder()

    def reopen(self) -> None:
        """Shapes that fitted nowhere may fit now, if any node has more to give."""
        if self.more_room:
            self.backlog.closed.clear()
            self.more_room = False

    def node_refreshed(self, node: Node) -> None:
        """A node's row, or its being connected, has changed."""
        self.columns.refresh(node)
        self.more_room = True
        self.count_node(node)

    def count_node(self, node: Node) -> None:
        """Take over into the pool's capacity what a node has, after its row changed."""
        row = node.row
        now: Amounts = NOTHING
        if row.state == "ready":
            now = (row.cpu_milli, row.memory_bytes, 1000 * len(row.gpus), row.pids)
        if now != node.counted:
            self.usages.settle(self.now_ms, self.capacity)
            for at, amount in enumerate(now):
                self.capacity[at] += amount - node.counted[at]
            node.counted = now
            self.batch.usages |= self.usages.namespaces

    # --- what has changed -------------------------------------------------------------------------
    def element_changed(self, element: ElementRow) -> None:
        self.batch.elements[(element.job, element.task, element.index)] = element

    def attempt_changed(self, attempt: AttemptRow) -> None:
        self.batch.attempts[(attempt.job, attempt.task, attempt.index, attempt.number)] = attempt

    def task_changed(self, task: Task) -> None:
        self.batch.tasks[(task.job.row.id, task.position)] = task
        self.foresight.recount(task)
        if task.limit is not None and not task.placeable:
            self.hand_on(task)

    def job_changed(self, job: Job) -> None:
        self.batch.jobs[job.row.id] = job

    def job_left(self, job: str) -> None:
        """A job is history: the store's alone."""
        left = self.jobs.pop(job)
        left.queue.jobs -= 1
        for task in left.tasks:
            task.done = True
            task.in_backlog = False
            self.foresight.recount(task)
            self.look_again(self.limits.leave(task))
        self.ended_jobs[job] = self.event_no
        if len(self.ended_jobs) > ENDED_JOBS_KEPT:
            self.ended_forgotten = self.ended_jobs.pop(next(iter(self.ended_jobs)))

    def node_changed(self, node: Node) -> None:
        self.batch.nodes[node.row.id] = node

    def event(self, kind: str, job: str | None, **data: Any) -> None:
        """Append a fact to the pool's stream."""
        self.event_no += 1
        self.batch.events.append(
            EventRow(number=self.event_no, at=self.now_ms, kind=kind, job=job, data=data)
        )

    def range_ended(self, task: Task, lo: int, hi: int, state: str, reason: str, message: str | None) -> None:
        """One row and one event for elements that ended without ever being placed."""
        job = task.job.row.id
        self.batch.ranges.append(
            RangeRow(job=job, task=task.position, lo=lo, hi=hi, state=state, reason=reason, message=message)
        )
        self.event(
            "elements.ended", job, task=task.name, lo=lo, hi=hi, state=state, reason=reason, message=message
        )

    def queue_again(self, task: Task, index: int) -> None:
        """An element that was placed before stands before its array's next."""
        heappush(task.again, index)
        self.backlog.add(task)

    def hold_back(self, element: ElementRow, until_ms: int) -> None:
        element.not_before = until_ms
        heappush(self.timers, (until_ms, element.job, element.task, element.index, element.number))


class Batch:
    """What has changed since the last ``collect``: objects, by key, in the order of their first change."""

    __slots__ = (
        "attempts",
        "durations",
        "elements",
        "events",
        "jobs",
        "keys",
        "nodes",
        "orders",
        "queues",
        "queues_gone",
        "ranges",
        "ranges_gone",
        "specs",
        "tasks",
        "usages",
    )

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.specs: list[SpecRow] = []
        self.tasks: dict[tuple[str, int], Task] = {}
        self.elements: dict[tuple[str, int, int], ElementRow] = {}
        self.ranges: list[RangeRow] = []
        self.ranges_gone: list[tuple[str, int, int]] = []
        self.attempts: dict[AttemptKey, AttemptRow] = {}
        self.nodes: dict[str, Node] = {}
        self.queues: dict[str, QueueRow] = {}
        self.queues_gone: dict[str, None] = {}
        self.usages: dict[str, Usage] = {}
        self.durations: dict[Key, None] = {}
        self.keys: list[KeyRow] = []
        self.events: list[EventRow] = []
        self.orders: list[Order] = []

    def changes(self, event_no: int, job_seq: int, foresight: Foresight) -> Changes:
        """The rows as they stand, copied: the memory goes on changing while they are written."""
        return Changes(
            event_no=event_no,
            job_seq=job_seq,
            jobs=_copies(job.row for job in self.jobs.values()),
            specs=self.specs,
            tasks=[task.row() for task in self.tasks.values()],
            elements=_copies(self.elements.values()),
            ranges=self.ranges,
            attempts=_copies(self.attempts.values()),
            nodes=_copies(node.row for node in self.nodes.values()),
            events=self.events,
            queues=_copies(self.queues.values()),
            queues_gone=list(self.queues_gone),
            usages=[usage.row() for usage in self.usages.values()],
            durations=[foresight.row(kind) for kind in self.durations],
            ranges_gone=self.ranges_gone,
            keys=self.keys,
        )


def _copies(rows: Iterable[Row]) -> list[Row]:
    return [replace(row) for row in rows]
