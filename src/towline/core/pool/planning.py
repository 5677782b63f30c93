"""``tow plan``: where everything of a job would go now, by the same pass, without changing anything.

The pass runs on a fork of the pool that shares its nodes' columns; what it takes of them is given back
at the end. Of what is queued the fork holds only what might go before the job: tasks of shapes that
are closed cannot start whatever comes.
"""

from __future__ import annotations

from copy import copy

from towline.core.commands import Submit
from towline.core.entries import Job, Node, Task
from towline.core.pool import explain, placing, submission
from towline.core.pool.state import PoolState
from towline.core.queues.limits import KeyLimit
from towline.core.queues.tree import QueueTree
from towline.core.rows import AttemptRow
from towline.model.job import JobSpec
from towline.model.views import PlannedView, PlanView, PlanWaitView

PLANNED = "plan"
"""The id of the job that is planned; no real one is so short."""
INDEXES_SHOWN = 20


class Fork(PoolState):
    """A pool that may be changed without the one that it was made from."""

    def __init__(self, pool: PoolState) -> None:
        super().__init__(pool.name, pool.term, pool.columns.rules)
        self._pool = pool
        self.now_ms, self.job_seq = pool.now_ms, pool.job_seq
        self.nodes, self.columns = pool.nodes, pool.columns
        self.capacity[:] = pool.capacity
        self._scratch: dict[int, Node] = {}
        self._copy_holdings(pool)
        self.foresight.lengths = pool.foresight.lengths
        self.blocked = {self.queues.queues[at.name]: task for at, task in pool.blocked.items()}
        self.reserved = dict(pool.reserved)
        self.backlog.closed = {} if pool.more_room else dict(pool.backlog.closed)
        for task in pool.backlog.tasks():
            if task.shape not in self.backlog.closed:
                self._copy_task(task)

    def _copy_holdings(self, pool: PoolState) -> None:
        self.queues = QueueTree(queue.row for queue in pool.queues.queues.values())
        for name, queue in pool.queues.queues.items():
            mine = self.queues.queues[name]
            mine.held, mine.active, mine.jobs = list(queue.held), queue.active, queue.jobs
            mine.blocked = queue.blocked
        for name, usage in pool.usages.namespaces.items():
            mine = self.usages.namespaces[name] = copy(usage)
            mine.held = list(usage.held)
        for where, limit in pool.limits.keys.items():
            self.limits.keys[where] = limit.fork()

    def _copy_task(self, task: Task) -> None:
        job = self.jobs.get(task.job.row.id)
        if job is None:
            row = task.job.row
            queue, usage = self.queues.queues[row.queue], self.usages.of(row.namespace, self.now_ms)
            job = Job(row=row, spec=task.job.spec, tasks=[], unfinished=0, queue=queue, usage=usage)
            self.jobs[row.id] = job
        mine = copy(task)
        mine.job, mine.in_backlog, mine.limit = job, False, self._limit_of(task)
        mine.ready, mine.early, mine.again = task.ready.copy(), task.early.copy(), list(task.again)
        mine.spread = dict(task.spread)
        mine.placed = {at: copy(task.placed[at]) for at in task.again if at in task.placed}
        self.backlog.add(mine)

    def _limit_of(self, task: Task) -> KeyLimit | None:
        limit = task.limit
        return None if limit is None else self.limits.keys[(limit.namespace, limit.key)]

    def observe(self, task: Task) -> None:
        """What is only planned teaches nobody anything."""

    def task_of(self, attempt: AttemptRow) -> Task:
        found = self.batch.tasks.get((attempt.job, attempt.task))
        return found or self._pool.task_of(attempt)

    def node_at(self, column: int) -> Node:
        node = self._scratch.get(column)
        if node is None:
            node = self._scratch[column] = copy(self.columns.entries[column])
            node.attempts = dict(node.attempts)
        return node

    def give_all_back(self) -> None:
        """Undo what the pass has taken of the columns that are shared."""
        for node in self._scratch.values():
            before = self.columns.entries[node.column].attempts
            for key, attempt in node.attempts.items():
                if key not in before:
                    self.columns.give(node.column, self.task_of(attempt).shape, attempt.devices)


def plan(pool: PoolState, spec: JobSpec, namespace: str) -> PlanView:
    """Raises InvalidDocument where the job would be refused."""
    fork = Fork(pool)
    submission.submit(fork, Submit(job=PLANNED, namespace=namespace, spec=spec))
    try:
        placing.place(fork)
        return PlanView(
            name=spec.name, queue=spec.queue, placements=_placements(fork), waiting=_waiting(fork)
        )
    finally:
        fork.give_all_back()


def _placements(fork: Fork) -> list[PlannedView]:
    found: dict[tuple[int, str], PlannedView] = {}
    for (job, position, index, _), attempt in fork.batch.attempts.items():
        if job != PLANNED:
            continue
        view = found.get((position, attempt.node))
        if view is None:
            task, node = fork.jobs[PLANNED].tasks[position].name, fork.nodes[attempt.node].row.name
            view = PlannedView(
                task=task, node=node, count=0, indexes=[], devices=[], placed=attempt.placed or ""
            )
            found[(position, attempt.node)] = view
        view.count += 1
        if len(view.indexes) < INDEXES_SHOWN:
            view.indexes.append(index)
            view.devices += [attempt.devices] if attempt.devices else []
    return list(found.values())


def _waiting(fork: Fork) -> list[PlanWaitView]:
    views: list[PlanWaitView] = []
    for task in fork.jobs[PLANNED].tasks:
        count = task.size - task.active
        if count:
            # A fork does not hold all that is before the job: an estimate would be too early.
            why = explain.explain(fork, PLANNED, task.name, None, estimate=False)
            summary = why.summary.rpartition("; the next one: ")[2]
            views.append(
                PlanWaitView(
                    task=task.name,
                    count=count,
                    summary=summary,
                    details=why.details,
                    expected_start=why.expected_start,
                )
            )
    return views
