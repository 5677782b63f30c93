"""Everything that must hold of a pool between two batches, derived again from scratch.

Unit tests run ``check`` after every step, simulations at intervals. It costs as much as the pool
is large, so production never runs it.
"""

from __future__ import annotations

import numpy as np

from towline.core.entries import Job, Task
from towline.core.placement.checking import check as check_columns
from towline.core.pool.endings import SUCCEEDED
from towline.core.pool.state import PoolState
from towline.core.queues.amounts import NAMES
from towline.model.states import AttemptState, ElementState, JobState

LIVE = (AttemptState.ASSIGNED, AttemptState.PREPARING, AttemptState.RUNNING)


def check(pool: PoolState) -> None:
    """Raise AssertionError, naming what is broken, unless every invariant holds."""
    backlog = set(map(id, pool.backlog.tasks()))
    for job in pool.jobs.values():
        _check_job(job)
        for task in job.tasks:
            _check_elements(pool, task)
            if not job.quarantined:
                _check_readiness(task)
                _check_backlog(task, id(task) in backlog)
    _check_attempts(pool)
    _check_capacity(pool)
    _check_holdings(pool)


def _expect(holds: bool, *what: object) -> None:
    if not holds:
        raise AssertionError(" ".join(str(part) for part in what))


def _check_job(job: Job) -> None:
    row = job.row
    _expect(row.state in (JobState.RUNNING, JobState.QUARANTINED), row.id, "has ended and is still held")
    if not job.quarantined:
        unfinished = sum(not task.has_ended for task in job.tasks)
        _expect(job.unfinished == unfinished, row.id, "counts", job.unfinished, "tasks, has", unfinished)
        _expect(unfinished > 0, row.id, "has nothing left and has not ended")
    for task in job.tasks:
        row = task.row()
        counts = (row.waiting, row.queued, row.active, row.succeeded, row.failed, row.cancelled, row.skipped)
        _expect(min(counts) >= 0, task.name, "has a negative count", counts)
        _expect(sum(counts) == task.size, task.name, "counts", counts, "do not add up to", task.size)


def _check_elements(pool: PoolState, task: Task) -> None:
    seen = np.zeros(task.size, dtype=np.int64)
    for indexes in task.ended.values():
        for lo, hi in indexes.ranges():
            seen[lo - task.first : hi - task.first + 1] += 1
    for index, element in task.placed.items():
        seen[index - task.first] += 1
        _expect(
            element.state in (ElementState.ACTIVE, ElementState.QUEUED), index, "is placed and", element.state
        )
        key = (element.job, element.task, index, element.number)
        if element.state == ElementState.ACTIVE:
            attempt = pool.attempts.get(key)
            _expect(attempt is not None and attempt.state in LIVE, key, "is active without an attempt")
    _expect(not task.size or int(seen.max()) <= 1, task.name, "has elements in two places at once")
    active = sum(element.state == ElementState.ACTIVE for element in task.placed.values())
    _expect(active == task.active, task.name, "counts", task.active, "active, has", active)
    if not task.by_element:
        gone = seen[: task.next - task.first]
        _expect(bool((gone == 1).all()), task.name, "has passed over an element before next")


def _check_readiness(task: Task) -> None:
    tasks = task.job.tasks
    needs = [other for other in tasks if task.position in other.dependents]
    pending = sum(len(need.ended[SUCCEEDED]) < need.size for need in needs)
    _expect(task.pending == pending, task.name, "waits for", task.pending, "needs, really", pending)
    if pending:
        _expect(not task.placed, task.name, "has started before its needs succeeded")
    for lo, hi in task.ready.ranges():
        for need in task.each_needs:
            _expect(not tasks[need].ended[SUCCEEDED].missing(lo, hi), task.name, "is ready too early")
    if task.by_element:
        expected = task.unplaced_ranges(task.first, task.last)
        for need in task.each_needs:
            succeeded = tasks[need].ended[SUCCEEDED]
            expected = [part for a, b in expected for part in succeeded.within(a, b)]
        _expect(expected == list(task.ready.ranges()), task.name, "is ready at", task.ready, "not", expected)
    for index in task.placed:
        for need in task.each_needs:
            _expect(index in tasks[need].ended[SUCCEEDED], task.name, index, "started too early")


def _check_holdings(pool: PoolState) -> None:
    """What queues, keys and namespaces hold, summed up again from the attempts on the nodes."""
    held: dict[int, list[int]] = {}
    active: dict[int, int] = {}
    for node in pool.nodes.values():
        for attempt in node.attempts.values():
            task = pool.jobs[attempt.job].tasks[attempt.task]
            holders = [*task.job.queue.path, task.job.usage, *([task.limit] if task.limit else ())]
            for holder in map(id, holders):
                before = held.get(holder, [0] * len(NAMES))
                held[holder] = [a + b for a, b in zip(before, task.asks, strict=True)]
                active[holder] = active.get(holder, 0) + 1
    nothing = [0] * len(NAMES)
    for queue in pool.queues.queues.values():
        _expect(queue.held == held.get(id(queue), nothing), "queue", queue.name, "holds", queue.held)
        _expect(queue.active == active.get(id(queue), 0), "queue", queue.name, "counts", queue.active)
        jobs = sum(job.queue is queue for job in pool.jobs.values())
        _expect(queue.jobs == jobs, "queue", queue.name, "counts", queue.jobs, "jobs, has", jobs)
        blocked = sum(queue in at.path for at in pool.blocked)
        _expect(
            queue.blocked == blocked, "queue", queue.name, "counts", queue.blocked, "blocked, has", blocked
        )
    for usage in pool.usages.namespaces.values():
        _expect(usage.held == held.get(id(usage), nothing), "namespace", usage.namespace, "holds", usage.held)
    for limit in pool.limits.keys.values():
        for (queue, shape), bucket in limit.parked.items():
            if limit.room and bucket.head() is not None:
                others = pool.backlog.shapes.get(shape, {}).get(queue)
                turn = others is not None and any(task.limit is limit for task in others.tasks())
                _expect(turn, "key", limit.key, "has room and nobody whose turn it is")
        _expect(limit.holders == active.get(id(limit), 0), "key", limit.key, "counts", limit.holders)
        wanted = [
            task.spec.limit.max
            for job in pool.jobs.values()
            for task in job.tasks
            if task.limit is limit and task.spec.limit is not None
        ]
        _expect(limit.most == min(wanted, default=0), "key", limit.key, "allows", limit.most)
    tasks = [task for job in pool.jobs.values() for task in job.tasks]
    waiting = [sum(task.counted * task.asks[at] for task in tasks) for at in range(len(NAMES))]
    _expect(pool.foresight.waiting == waiting, "the pool counts", pool.foresight.waiting, "queued", waiting)
    capacity = [sum(node.counted[at] for node in pool.nodes.values()) for at in range(len(NAMES))]
    _expect(pool.capacity == capacity, "the pool counts", pool.capacity, "nodes have", capacity)


def _check_backlog(task: Task, inside: bool) -> None:
    _expect(inside == task.in_backlog, task.name, "is wrong about being in the backlog")
    due = any(
        element.state == ElementState.QUEUED and element.not_before is None
        for element in task.placed.values()
    )
    if task.fresh or due:
        _expect(inside, task.name, "has something to place and is not in the backlog")


def _check_attempts(pool: PoolState) -> None:
    for key, attempt in pool.attempts.items():
        element = pool.jobs[attempt.job].tasks[attempt.task].placed.get(attempt.index)
        _expect(element is not None and element.number == attempt.number, key, "is not the newest attempt")
        held = key in pool.nodes[attempt.node].attempts
        _expect(held == (attempt.state in LIVE), key, attempt.state, "is held by its node:", held)
    held_keys = [key for node in pool.nodes.values() for key in node.attempts]
    _expect(len(held_keys) == len(set(held_keys)), "an attempt is on two nodes")
    _expect(all(key in pool.attempts for key in held_keys), "a node holds an attempt that is unknown")


def _check_capacity(pool: PoolState) -> None:
    columns = pool.columns
    for node in pool.nodes.values():
        held = [
            (pool.jobs[attempt.job].tasks[attempt.task].shape, attempt.devices)
            for attempt in node.attempts.values()
        ]
        wrong = check_columns(columns, node.column, held)
        _expect(wrong is None, node.row.id, wrong)
