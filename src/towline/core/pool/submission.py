"""Jobs that come in, and wishes that they end."""

from __future__ import annotations

from towline.core import graph
from towline.core.commands import Cancel, Quarantine, Submit
from towline.core.entries import Job, Task
from towline.core.placement.shape import shape_of
from towline.core.pool.endings import (
    CANCELLED,
    Ended,
    close_quarantined,
    settle_element,
    settle_unplaced,
    spread,
)
from towline.core.pool.membership import stop_order
from towline.core.pool.state import PoolState
from towline.core.queues.amounts import asked_by
from towline.core.queues.changing import unknown
from towline.core.queues.tree import DEFAULT
from towline.core.rows import JobRow, SpecRow
from towline.errors import InvalidDocument, NotFound, Problem
from towline.model.job import Array, JobSpec
from towline.model.states import ElementState, JobState, Reason

ONE = Array()
SEQS_A_MS = 1024
"""Numbers of the order of submission in a millisecond; below 2**53, which a float holds, until 2248."""


def submit(pool: PoolState, command: Submit) -> None:
    """A job joins the end of the order. A job id that is here already, or was, is left as it is.

    The server looks into the store first; this is for what happens between its look and now.
    """
    if command.job in pool.jobs or command.job in pool.ended_jobs:
        return
    problem, remedy = unknown(pool.queues, command.spec.queue)
    if problem:
        raise InvalidDocument([Problem("queue", problem, remedy)])
    job = make_job(pool, _new_row(pool, command), command.spec)
    row = job.row
    pool.jobs[row.id] = job
    pool.job_changed(job)
    pool.batch.specs.append(SpecRow(job=row.id, spec=command.spec, base_dir=command.base_dir))
    pool.event("job.submitted", row.id, name=row.name, namespace=row.namespace)
    for task in job.tasks:
        pool.task_changed(task)
        pool.backlog.add(task)


def _new_row(pool: PoolState, command: Submit) -> JobRow:
    # Pools count alone, and their jobs stand in one order by time: a millisecond has room for 1024 of them.
    pool.job_seq = max(pool.job_seq + 1, pool.now_ms * SEQS_A_MS)
    return JobRow(
        id=command.job,
        seq=pool.job_seq,
        namespace=command.namespace,
        name=command.spec.name,
        state=JobState.RUNNING.value,
        reason=None,
        message=None,
        priority=command.spec.priority,
        cancel_requested=False,
        submitted_at=pool.now_ms,
        ended_at=None,
        queue=command.spec.queue,
        pool=pool.name,
    )


def _bare_job(pool: PoolState, row: JobRow, spec: JobSpec, unfinished: int) -> Job:
    # A queue that is not there any more can only be that of a job that was set aside.
    queue = pool.queues.queues.get(row.queue) or pool.queues.queues[DEFAULT]
    queue.jobs += 1
    usage = pool.usages.of(row.namespace, pool.now_ms)
    return Job(row=row, spec=spec, tasks=[], unfinished=unfinished, queue=queue, usage=usage)


def make_job(pool: PoolState, row: JobRow, spec: JobSpec) -> Job:
    """A job in memory of which nothing has happened yet; its queue counts it from now on."""
    edges = graph.build(spec)
    job = _bare_job(pool, row, spec, len(spec.tasks))
    for position, (name, task) in enumerate(spec.tasks.items()):
        array = task.array or ONE
        job.tasks.append(
            Task(
                job=job,
                position=position,
                name=name,
                spec=task,
                first=array.first,
                last=array.last,
                next=array.first,
                shape=shape_of(task, pool.silence.leased),
                asks=asked_by(task.resources),
                pending=len(edges.needs[position]),
                dependents=edges.dependents[position],
                each_needs=edges.each_needs[position],
                each_dependents=edges.each_dependents[position],
            )
        )
        pool.limits.join(job.tasks[-1])
    for task in job.tasks:
        pool.foresight.arrive(task, row.submitted_at)
        pool.observe(task)
    return job


def cancel(pool: PoolState, command: Cancel) -> None:
    """What has not started ends at once; what runs is told to stop. Raises NotFound, with nothing done."""
    job = pool.jobs.get(command.job)
    if job is None:
        raise NotFound(f"there is no unfinished job {command.job}")
    tasks = _wanted_tasks(job, command)
    if command.task is None and not job.row.cancel_requested:
        job.row.cancel_requested = True
        pool.job_changed(job)
    pool.event("job.cancel_requested", job.row.id, task=command.task, index=command.index, kill=command.kill)
    ended: list[Ended] = []
    for task in tasks:
        lo, hi = (task.first, task.last) if command.index is None else (command.index, command.index)
        ended += _cancel_range(pool, task, lo, hi, command.kill)
    if not job.quarantined:
        spread(pool, ended)
    else:
        close_quarantined(pool, job)


def _wanted_tasks(job: Job, command: Cancel) -> list[Task]:
    if command.task is None:
        return job.tasks
    task = job.task(command.task)
    if task is None:
        raise NotFound(f"job {job.row.id} has no task {command.task!r}")
    if command.index is not None and not task.first <= command.index <= task.last:
        raise NotFound(
            f"task {task.name} has no element {command.index}: its indexes are {task.first} to {task.last}"
        )
    return [task]


def _cancel_range(pool: PoolState, task: Task, lo: int, hi: int, kill: bool) -> list[Ended]:
    reason = Reason.CANCELLED.value
    ended = [
        settle_unplaced(pool, task, a, b, CANCELLED, reason, None) for a, b in task.unplaced_ranges(lo, hi)
    ]
    if ended:
        pool.task_changed(task)
    for index in sorted(index for index in task.placed if lo <= index <= hi):
        element = task.placed[index]
        if element.state == ElementState.QUEUED:
            element.reason, element.message = reason, None
            ended.append(settle_element(pool, task, element, CANCELLED))
            continue
        attempt = pool.attempts[(element.job, element.task, index, element.number)]
        attempt.stop = reason
        pool.attempt_changed(attempt)
        node = pool.nodes[attempt.node]
        pool.batch.orders.append(stop_order(node, attempt, 0 if kill else task.spec.grace_ms))
    return ended


def quarantine(pool: PoolState, command: Quarantine) -> None:
    """Set a job aside: visible, cancellable, what runs goes on, nothing starts any more."""
    job = pool.jobs.get(command.job)
    if job is None and command.submit is not None:
        # Its own submission is what failed: a row to see, and nothing that could fail again.
        row = _new_row(pool, command.submit)
        job = pool.jobs[row.id] = _bare_job(pool, row, command.submit.spec, 0)
        pool.batch.specs.append(
            SpecRow(job=row.id, spec=command.submit.spec, base_dir=command.submit.base_dir)
        )
    if job is None or job.quarantined:
        return
    job.row.state = JobState.QUARANTINED.value
    job.row.reason = Reason.INTERNAL_ERROR.value
    job.row.message = command.message
    pool.job_changed(job)
    for task in job.tasks:
        pool.foresight.recount(task)
        pool.hand_on(task)
    pool.event("job.quarantined", job.row.id, message=command.message)
