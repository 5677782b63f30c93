"""Whether parts of a job can run again: by what its record and the pool's memory say of it."""

from __future__ import annotations

from towline.core.arrays import IndexSet
from towline.core.commands import Retry
from towline.core.entries import Job
from towline.core.pool.repair import rerun
from towline.core.pool.repair.rerun import CANCELLED, FAILED, Again, Standing
from towline.core.pool.state import PoolState
from towline.core.rows import JobRecord, TaskRow
from towline.errors import Conflict, NotFound, Outdated
from towline.model.states import ENDED, JobState


def check(pool: PoolState, job: Job | None, record: JobRecord) -> None:
    """That the record tells what there is, and that the job is one to run again."""
    row = record.job
    if row.pool != pool.name:
        # Whoever asked was sent here by mistake: in two memories it would run twice.
        raise NotFound(f"job {row.name} ({row.id}) is of the pool {row.pool}, not of {pool.name}")
    known = pool.ended_jobs.get(row.id, pool.ended_forgotten) if job is None else job.retried_at
    if record.event_no < known or (job is None and row.state == JobState.RUNNING):
        raise Outdated(f"job {row.id} has gone on since its record was read")
    unended = sum(task.waiting + task.queued + task.active for task in record.tasks)
    if row.state == JobState.QUARANTINED or (job is not None and job.quarantined):
        raise Conflict(
            f"job {row.name} ({row.id}) was set aside after an error of Towline's own: submit it again"
        )
    if job is not None:
        if job.row.cancel_requested:
            raise Conflict(f"job {row.name} ({row.id}) is being cancelled: wait for its end, then retry it")
        return
    if unended or len(record.tasks) < len(record.spec.spec.tasks):
        raise Conflict(
            f"job {row.name} ({row.id}) was set aside before it had begun, or half done: submit it again"
        )
    if row.queue not in pool.queues.queues:
        raise Conflict(
            f"queue {row.queue!r} of job {row.name} ({row.id}) is no more: make it again with "
            f"`tow queue create {row.queue}`"
        )
    if any(_known(record, task) != task.last - task.first + 1 for task in record.tasks):
        raise NotFound(f"job {row.name} ({row.id}) is older than what is kept, and is being deleted")


def _known(record: JobRecord, task: TaskRow) -> int:
    placed = sum(hi - lo + 1 for _, at, _, lo, hi in record.ended if at == task.task)
    return placed + sum(row.hi - row.lo + 1 for row in record.ranges if row.task == task.task)


def standings(job: Job | None, record: JobRecord) -> list[Standing]:
    """How the tasks stand: by memory where the job is in it, else by the record."""
    found: list[Standing] = []
    for row in record.tasks:
        ended = {state.value: IndexSet() for state in ENDED} if job is None else job.tasks[row.task].ended
        found.append(Standing(row.first, row.last, ended, IndexSet(), IndexSet()))
    for row in record.elements:
        found[row.task].placed.add(row.index, row.index)
    for row in record.ranges:
        found[row.task].unplaced.add(row.lo, row.hi)
    if job is None:
        for _, at, state, lo, hi in record.ended:
            found[at].ended[state].add(lo, hi)
        for row in record.ranges:
            found[row.task].ended[row.state].add(row.lo, row.hi)
    return found


def wanted_of(command: Retry, tasks: list[Standing]) -> dict[int, IndexSet]:
    names = list(command.record.spec.spec.tasks)
    if not command.named:
        return {at: IndexSet([(task.first, task.last)]) for at, task in enumerate(tasks)}
    wanted: dict[int, IndexSet] = {}
    for name, index in command.named:
        if name not in names:
            raise NotFound(f"job {command.job} has no task {name!r}")
        at = names.index(name)
        task = tasks[at]
        if index is not None and not task.first <= index <= task.last:
            raise NotFound(f"task {name} has no element {index}: its indexes are {task.first} to {task.last}")
        lo, hi = (task.first, task.last) if index is None else (index, index)
        wanted.setdefault(at, IndexSet()).add(lo, hi)
    return wanted


def check_named(command: Retry, tasks: list[Standing], again: list[Again]) -> None:
    """What is named by itself must run again, or be on its way already."""
    names = list(command.record.spec.spec.tasks)
    for name, index in command.named:
        task, part = tasks[names.index(name)], again[names.index(name)]
        lo, hi = (task.first, task.last) if index is None else (index, index)
        if any(rerun.meet(found, [(lo, hi)]) for found in part):
            continue
        where = name if index is None else f"{name}.{index}"
        ended = {state: rerun.meet(indexes, [(lo, hi)]) for state, indexes in task.ended.items()}
        if sum(map(len, ended.values())) <= hi - lo:
            continue  # something of it has not ended
        if not any(ended[state] for state in rerun.UNSUCCESSFUL):
            raise Conflict(f"{where} has succeeded: what has succeeded is not run again")
        if ended[FAILED]:
            raise Outdated(f"{where} has failed since its record was read")
        if ended[CANCELLED] and command.failed_only:
            raise Conflict(f"{where} was cancelled and has not failed: leave out --failed to run it again")
        raise Conflict(
            f"{where} cannot run again by itself, since something that it needs was not successful: "
            f"`tow why {command.job}/{where}` says what; retry that, or the whole job"
        )


def nothing_again(job: Job | None, command: Retry) -> tuple[str, ...]:
    if job is not None:
        return ()
    row = command.record.job
    if row.state == JobState.SUCCEEDED:
        raise Conflict(f"job {row.name} ({row.id}) has succeeded: there is nothing to run again")
    raise Conflict(
        f"nothing of job {row.name} ({row.id}) has failed: leave out --failed to run again what was cancelled"
    )
