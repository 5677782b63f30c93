"""A pool from the store's rows: what a leader does at takeover, and after a failed commit."""

from __future__ import annotations

from heapq import heappush

from towline.core.entries import Job, Node, Task
from towline.core.lease import Silence
from towline.core.placement.choosing.rules import Rules
from towline.core.pool.endings import SUCCEEDED
from towline.core.pool.membership import READY, add_node
from towline.core.pool.state import Batch, PoolState
from towline.core.pool.submission import make_job
from towline.core.rows import AttemptRow, ElementRow, NodeRow, PoolSnapshot
from towline.model.states import AttemptState, ElementState

ACTIVE = ElementState.ACTIVE.value


def load(
    snapshot: PoolSnapshot, now_ms: int, rules: Rules | None = None, silence: Silence | None = None
) -> PoolState:
    """The pool as it was committed. Nodes count as unconnected, and as heard of now."""
    pool = PoolState(snapshot.pool, snapshot.term, rules, silence)
    pool.now_ms = now_ms
    pool.event_no, pool.job_seq = snapshot.event_no, snapshot.job_seq
    pool.queues.rebuild(snapshot.queues)
    for row in snapshot.nodes:
        add_node(pool, row, connected=False)
    for row in snapshot.usages:
        pool.usages.load(row)
    pool.foresight.load(snapshot.durations)
    specs = {row.job: row.spec for row in snapshot.specs}
    for row in sorted(snapshot.jobs, key=lambda row: row.seq):
        pool.jobs[row.id] = make_job(pool, row, specs[row.id])
    for row in snapshot.tasks:
        task = pool.jobs[row.job].tasks[row.task]
        task.next, task.image_digest = row.next, row.image_digest
    for job, position, state, lo, hi in snapshot.ended:
        pool.jobs[job].tasks[position].ended[state].add(lo, hi)
    for row in snapshot.ranges:
        pool.jobs[row.job].tasks[row.task].ended[row.state].add(row.lo, row.hi)
    for row in snapshot.elements:
        pool.jobs[row.job].tasks[row.task].placed[row.index] = row
    for row in snapshot.attempts:
        _load_attempt(pool, row)
    for job in pool.jobs.values():
        derive(pool, job)
    pool.batch = Batch()
    return pool


def _load_attempt(pool: PoolState, row: AttemptRow) -> None:
    task = pool.jobs[row.job].tasks[row.task]
    element = task.placed.get(row.index)
    if element is None or element.number != row.number:
        return
    key = (row.job, row.task, row.index, row.number)
    if element.state == ACTIVE:
        node = pool.nodes.get(row.node) or _stand_in(pool, row.node)
        node.attempts[key] = row
        pool.columns.hold(node.column, task.shape, row.devices)
        _hold(task, node.column)
        pool.foresight.work.started(task.load, row.assigned_at + task.longest_ms)
        pool.attempts[key] = row
    elif (
        row.state == AttemptState.LOST
        and element.losses
        and row.node in pool.nodes
        and row.number > pool.before
    ):
        # It may still be taken back. (No losses are counted of an element that runs again on request:
        # its attempt was given up; a node that has joined another pool since will tell of none here.)
        pool.attempts[key] = row


def _stand_in(pool: PoolState, id: str) -> Node:
    """For a node that another pool has, although something is active on it here: nobody will tell of that,
    so it counts as silent, and what it is thought to run is lost in time."""
    row = NodeRow(
        id=id, name=id, instance="", state=READY, cpu_milli=0, memory_bytes=0, pids=0, labels={}, runtimes={}
    )
    return add_node(pool, row, connected=False)


def _hold(task: Task, column: int) -> None:
    """What an active element holds, without the namespace's usage being settled: that has run on since
    its row was written."""
    task.job.queue.hold(task.asks, 1)
    task.job.usage.hold(task.asks, 1)
    if task.limit is not None:
        task.limit.holders += 1
    if task.shape.spread is not None:
        task.spread[column] = task.spread.get(column, 0) + 1


def derive(pool: PoolState, job: Job) -> None:
    """What follows from the rows and is not kept: readiness, active counts, timers, the backlog."""
    for task in job.tasks:
        task.active = sum(element.state == ACTIVE for element in task.placed.values())
        task.done = task.has_ended
        job.unfinished -= task.done
        if task.done:
            pool.look_again(pool.limits.leave(task))
        if not task.by_element:
            for indexes in task.ended.values():
                for lo, hi in indexes.within(task.next, task.last):
                    task.early.add(lo, hi)
    for task in job.tasks:
        if task.done and len(task.ended[SUCCEEDED]) == task.size:
            for at in task.dependents:
                job.tasks[at].pending -= 1
    for task in job.tasks:
        if task.by_element:
            for lo, hi in task.unplaced_with_needs(task.first, task.last):
                task.ready.add(lo, hi)
        for element in task.placed.values():
            _requeue(pool, task, element)
        pool.foresight.recount(task)
        pool.backlog.add(task)


def _requeue(pool: PoolState, task: Task, element: ElementRow) -> None:
    if element.state == ACTIVE:
        return
    if element.not_before is None:
        heappush(task.again, element.index)
    else:
        key = (element.not_before, element.job, element.task, element.index, element.number)
        heappush(pool.timers, key)
