"""What an end sets off: counts, what needs it, the task, the job.

Ends spread over a work list, never by recursion: a chain may be ten thousand tasks long.
"""

from __future__ import annotations

from collections import deque

from towline.core import lifecycle
from towline.core.entries import Job, Task
from towline.core.pool.state import PoolState
from towline.core.rows import ElementRow
from towline.model.states import ElementState, JobState, Reason

Ended = tuple[Task, int, int, str]
"""(task, first index, last index, the state they ended in)."""

SUCCEEDED, FAILED = ElementState.SUCCEEDED.value, ElementState.FAILED.value
CANCELLED, SKIPPED = ElementState.CANCELLED.value, ElementState.SKIPPED.value
ACTIVE = ElementState.ACTIVE.value


def end_element(pool: PoolState, task: Task, element: ElementRow, state: str) -> None:
    """A placed element ends; its reason, message and exit code are set already."""
    spread(pool, [settle_element(pool, task, element, state)])


def settle_element(pool: PoolState, task: Task, element: ElementRow, state: str) -> Ended:
    """The element's own part of its end; what it sets off is ``spread``'s."""
    lifecycle.check(lifecycle.ELEMENT, element.state, state)
    if element.state == ACTIVE:
        task.active -= 1
    element.state = state
    element.not_before = None
    del task.placed[element.index]
    task.ended[state].add(element.index, element.index)
    pool.element_changed(element)
    pool.attempts.pop((element.job, element.task, element.index, element.number), None)
    if state == FAILED and task.job.row.message is None:
        name = task.name if task.spec.array is None else f"{task.name}.{element.index}"
        task.job.row.message = f"{name}: {element.message or element.reason}"
    return task, element.index, element.index, state


def settle_unplaced(
    pool: PoolState, task: Task, lo: int, hi: int, state: str, reason: str, message: str | None
) -> Ended:
    """A range of unplaced elements ends; what it sets off is ``spread``'s."""
    task.leave_unplaced(lo, hi)
    task.ended[state].add(lo, hi)
    pool.range_ended(task, lo, hi, state, reason, message)
    return task, lo, hi, state


def spread(pool: PoolState, ended: list[Ended]) -> None:
    """Carry ends on to what depends on them, until nothing follows any more."""
    work = deque(ended)
    while work:
        task, lo, hi, state = work.popleft()
        pool.task_changed(task)
        tasks = task.job.tasks
        if state == SUCCEEDED:
            for at in task.each_dependents:
                _make_ready(pool, tasks[at], lo, hi)
        else:
            for at in task.each_dependents:
                of = f"{task.name}.{lo}" if lo == hi else f"{task.name}.{lo}-{hi}"
                work.extend(_skip(pool, tasks[at], lo, hi, f"it needs {of}, which was not successful"))
            for at in task.dependents:
                other = tasks[at]
                message = f"it needs {task.name}, which was not successful"
                work.extend(_skip(pool, other, other.first, other.last, message))
        if not task.done and task.has_ended:
            _end_task(pool, task)


def _skip(pool: PoolState, task: Task, lo: int, hi: int, message: str) -> list[Ended]:
    if not task.unplaced:
        return []
    return [
        settle_unplaced(pool, task, a, b, SKIPPED, Reason.NEED_FAILED.value, message)
        for a, b in task.unplaced_ranges(lo, hi)
    ]


def _make_ready(pool: PoolState, task: Task, lo: int, hi: int) -> None:
    """Elements ``lo`` to ``hi`` of one need have succeeded: which of this task may start now?"""
    found = task.unplaced_with_needs(lo, hi)
    for a, b in found:
        task.ready.add(a, b)
    if found:
        pool.task_changed(task)
        pool.backlog.add(task)


def _end_task(pool: PoolState, task: Task) -> None:
    job = task.job
    task.done = True
    task.in_backlog = False
    pool.look_again(pool.limits.leave(task))
    job.unfinished -= 1
    succeeded = len(task.ended[SUCCEEDED]) == task.size
    pool.event("task.ended", job.row.id, task=task.name, state=outcome(task))
    if succeeded:
        for at in task.dependents:
            other = job.tasks[at]
            other.pending -= 1
            if other.pending == 0:
                pool.task_changed(other)
                pool.backlog.add(other)
    if job.unfinished == 0:
        _end_job(pool, job)


def outcome(task: Task) -> str:
    """The state of a task all of whose elements have ended."""
    for state in (FAILED, CANCELLED, SKIPPED):
        if task.ended[state]:
            return state
    return SUCCEEDED


def _end_job(pool: PoolState, job: Job) -> None:
    outcomes = {outcome(task) for task in job.tasks}
    state, reason = JobState.FAILED, Reason.TASK_FAILED
    if outcomes == {SUCCEEDED}:
        state, reason = JobState.SUCCEEDED, None
    elif job.row.cancel_requested or FAILED not in outcomes:
        state, reason = JobState.CANCELLED, Reason.CANCELLED
    if job.quarantined:
        return
    finish_job(pool, job, state, reason)


def finish_job(pool: PoolState, job: Job, state: JobState, reason: Reason | None) -> None:
    """The job leaves the memory: from now on it is history, and the store's alone."""
    row = job.row
    lifecycle.check(lifecycle.JOB, row.state, state)
    row.state = state.value
    row.reason = None if reason is None else reason.value
    if state != JobState.FAILED:
        row.message = None
    row.ended_at = pool.now_ms
    pool.job_changed(job)
    pool.event("job.ended", row.id, state=row.state, reason=row.reason, message=row.message)
    pool.job_left(row.id)


def close_quarantined(pool: PoolState, job: Job) -> None:
    """A quarantined job that was cancelled ends when nothing of it runs any more."""
    if job.row.cancel_requested and not any(task.active for task in job.tasks):
        finish_job(pool, job, JobState.CANCELLED, Reason.CANCELLED)
