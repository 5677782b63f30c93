"""Parts of a job on their way back: into memory, out of what has ended, and into the backlog."""

from __future__ import annotations

from towline.core import lifecycle
from towline.core.arrays import IndexSet, Range
from towline.core.commands import Retry
from towline.core.entries import Job, Task
from towline.core.pool.loading import derive
from towline.core.pool.repair.rerun import FAILED, Again
from towline.core.pool.state import PoolState
from towline.core.pool.submission import make_job
from towline.core.rows import ElementRow, JobRecord, RangeRow, unplaced_element
from towline.model.states import ElementState, JobState

QUEUED, WAITING = ElementState.QUEUED.value, ElementState.WAITING.value
RANGES_TOLD = 1_000
"""So many ranges stand in one event."""


def revive(pool: PoolState, record: JobRecord) -> Job:
    """A job that has ended, in memory again as it ended."""
    job = make_job(pool, record.job, record.spec.spec)
    for row in record.tasks:
        job.tasks[row.task].next, job.tasks[row.task].image_digest = row.next, row.image_digest
    for _, at, state, lo, hi in record.ended:
        job.tasks[at].ended[state].add(lo, hi)
    for row in record.ranges:
        job.tasks[row.task].ended[row.state].add(row.lo, row.hi)
    derive(pool, job)
    pool.jobs[job.row.id] = job
    pool.ended_jobs.pop(job.row.id, None)
    pool.batch.specs.append(record.spec)
    return job


def run_again(pool: PoolState, job: Job, again: list[Again], command: Retry) -> None:
    row, record = job.row, command.record
    if row.state != JobState.RUNNING:
        lifecycle.check(lifecycle.JOB, row.state, JobState.RUNNING)
    row.state, row.reason, row.ended_at = JobState.RUNNING.value, None, None
    row.cancel_requested = False
    row.message = _message(job, again, record)
    pool.job_changed(job)
    counts = {task.name: sum(map(len, part)) for task, part in zip(job.tasks, again, strict=True)}
    told = {name: count for name, count in counts.items() if count}
    pool.event("job.retried", row.id, tasks=told, key=command.key)
    elements = [row for row in record.elements if row.index in again[row.task].placed]
    ranges = [row for row in record.ranges if again[row.task].unplaced.within(row.lo, row.hi)]
    for task, part in zip(job.tasks, again, strict=True):
        if not part.names_nothing:
            _reopen(pool, task)
            _tell(pool, task, part.ranges)
            unplaced = IndexSet((row.lo, row.hi) for row in record.ranges if row.task == task.position)
            for index in task.come_back(part.unplaced, unplaced):
                _queue(pool, task, unplaced_element(task.job.row.id, task.position, index, QUEUED))
    for element in elements:
        task = job.tasks[element.task]
        lifecycle.check(lifecycle.ELEMENT, element.state, QUEUED)
        task.ended[element.state].remove(element.index, element.index)
        _queue(pool, task, element)
    for held in ranges:
        _cut(pool, held, again[held.task].unplaced)
    for task, part in zip(job.tasks, again, strict=True):
        if not part.names_nothing:
            _make_ready(task, part)
            pool.task_changed(task)
            pool.backlog.add(task)
    job.retried_at = pool.event_no


def _message(job: Job, again: list[Again], record: JobRecord) -> str | None:
    """What to say of the job now: its first failure among those that stay, where that is known."""
    for row in record.elements:
        if row.state == FAILED and row.index not in again[row.task].placed:
            task = job.tasks[row.task]
            name = task.name if task.spec.array is None else f"{task.name}.{row.index}"
            return f"{name}: {row.message or row.reason}"
    left = sum(len(task.ended[FAILED]) for task in job.tasks)
    chosen = sum(row.state == FAILED for row in record.elements)
    return job.row.message if left > chosen else None


def _reopen(pool: PoolState, task: Task) -> None:
    if task.done:
        task.done = False
        task.job.unfinished += 1
        pool.limits.join(task)


def _queue(pool: PoolState, task: Task, element: ElementRow) -> None:
    """An element that was placed before queues again, with all its retries before it. Where its attempt
    was lost, that is given up: only the next one counts."""
    element.state = QUEUED
    element.failures = element.losses = 0
    element.not_before = element.reason = element.message = element.exit_code = None
    task.placed[element.index] = element
    pool.queue_again(task, element.index)
    pool.element_changed(element)


def _cut(pool: PoolState, held: RangeRow, gone: IndexSet) -> None:
    """A range of elements that ended unplaced keeps what stays so."""
    lifecycle.check(lifecycle.ELEMENT, held.state, WAITING)
    pool.batch.ranges_gone.append((held.job, held.task, held.lo))
    for lo, hi in gone.missing(held.lo, held.hi):
        pool.batch.ranges.append(
            RangeRow(
                job=held.job,
                task=held.task,
                lo=lo,
                hi=hi,
                state=held.state,
                reason=held.reason,
                message=held.message,
            )
        )


def _make_ready(task: Task, part: Again) -> None:
    if task.by_element:
        for lo, hi in part.unplaced.ranges():
            for a, b in task.unplaced_with_needs(lo, hi):
                task.ready.add(a, b)


def _tell(pool: PoolState, task: Task, ranges: list[Range]) -> None:
    for at in range(0, len(ranges), RANGES_TOLD):
        told = [[lo, hi] for lo, hi in ranges[at : at + RANGES_TOLD]]
        pool.event("elements.retried", task.job.row.id, task=task.name, ranges=told)


def names_of(task: Task, part: Again) -> list[str]:
    if task.spec.array is None:
        return [] if part.names_nothing else [task.name]
    return [f"{task.name}.{lo}" if lo == hi else f"{task.name}.{lo}-{hi}" for lo, hi in part.ranges]
