"""Queues that are made, changed and deleted, and priorities that change."""

from __future__ import annotations

from msgspec import UNSET, structs

from towline.core.commands import DeleteQueue, SetPriority, SetQueue
from towline.core.pool.state import PoolState
from towline.core.queues import changing
from towline.core.rows import QueueRow
from towline.errors import Conflict, NotFound, RequestError

PLAIN = ("parent", "weight_milli", "max_priority", "max_active")
AMOUNTS = ("guaranteed", "maximum")


def set_queue(pool: PoolState, command: SetQueue) -> None:
    """Make a queue or change one. Raises RequestError, with nothing done."""
    tree, name = pool.queues, command.name
    before = tree.queues.get(name)
    if before is not None and command.only == "new":
        raise Conflict(f"there is a queue {name!r} already: change it with `tow queue set {name}`")
    if before is None and command.only == "existing":
        changing.find(tree, name)
    row = QueueRow(name=name, parent=None) if before is None else before.row
    given = {field: getattr(command, field) for field in PLAIN}
    given |= {
        field: changing.merged(getattr(row, field), getattr(command, field) or {})
        for field in AMOUNTS
        if getattr(command, field) is not UNSET
    }
    row = structs.replace(row, **{field: value for field, value in given.items() if value is not UNSET})
    changing.check(tree, row)
    if before is not None and row == before.row:
        return
    rows = [queue.row for queue in tree.queues.values() if queue.name != name]
    for at in list(pool.blocked):
        pool.unblock(at)  # the ways to the top may change; the next pass finds out who is first
    tree.rebuild([*rows, row])
    tree.derive()
    pool.more_room = True
    pool.batch.queues[name] = row
    pool.batch.queues_gone.pop(name, None)
    told = {field: getattr(row, field) for field in (*PLAIN, *AMOUNTS)}
    pool.event("queue.changed", None, queue=name, new=before is None, **told)
    pool.reorder()


def delete_queue(pool: PoolState, command: DeleteQueue) -> None:
    """Raises NotFound, and RequestError where something still needs the queue."""
    tree, name = pool.queues, command.name
    queue = changing.find(tree, name)
    changing.check_deletion(queue)
    tree.rebuild([other.row for other in tree.queues.values() if other is not queue])
    tree.derive()
    pool.backlog.forget(queue)
    pool.batch.queues.pop(name, None)
    pool.batch.queues_gone[name] = None
    pool.event("queue.deleted", None, queue=name)


def set_priority(pool: PoolState, command: SetPriority) -> None:
    """Raises NotFound and RequestError."""
    if not 0 <= command.priority <= 100:
        raise RequestError(f"priority {command.priority} is out of range: write 0 to 100, higher goes first")
    job = pool.jobs.get(command.job)
    if job is None:
        raise NotFound(f"there is no unfinished job {command.job}: only what waits has a priority")
    most = job.queue.max_priority
    if command.priority > most:
        raise RequestError(
            f"priority {command.priority} is above what queue {job.queue.name!r} allows: write at most "
            f"{most}, or raise it with `tow queue set {job.queue.name} --max-priority {command.priority}`"
        )
    if command.priority == job.row.priority:
        return
    before, job.row.priority = job.row.priority, command.priority
    pool.job_changed(job)
    pool.event("job.priority_changed", job.row.id, priority=command.priority, before=before)
    for task in job.tasks:
        if task.in_backlog:
            pool.backlog.put(task)
