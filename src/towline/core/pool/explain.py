"""Why something is where it is: the answer of ``tow why``.

It asks the filters that the pass places with, so it cannot disagree with the pass.
"""

from __future__ import annotations

from towline.core.commands import attempt_id
from towline.core.entries import Job, Task
from towline.core.pool.endings import SUCCEEDED, outcome
from towline.core.pool.scheduling import forecast, reasons
from towline.core.pool.scheduling.reserving import Reserving
from towline.core.pool.state import PoolState
from towline.core.queues.backlog import has_again
from towline.core.rows import AttemptRow, ElementRow
from towline.errors import NotFound
from towline.model.states import AttemptState, ElementState
from towline.model.units import rfc3339, show_duration
from towline.model.views import WhyView

RESERVED, ESTIMATED = "reserved", "estimated"
Reasons = tuple[str, str, list[str]]
"""(state, summary, details)."""

NAMED = 5
"""How many tasks, nodes or groups are named one by one before the rest is counted."""


def explain(
    pool: PoolState, job_id: str, task_name: str | None, index: int | None, *, estimate: bool = True
) -> WhyView:
    """Explain a job, a task of it or an element; ``estimate`` also when what has no reservation will
    start. Raises NotFound."""
    job = pool.jobs.get(job_id)
    if job is None:
        raise NotFound(f"there is no unfinished job {job_id}")
    task: Task | None = None
    if task_name is None:
        state, summary, details = _job(pool, job)
    else:
        task = job.task(task_name)
        if task is None:
            raise NotFound(f"job {job_id} has no task {task_name!r}")
        if index is not None and not task.first <= index <= task.last:
            raise NotFound(f"task {task_name} has no element {index}: {task.first} to {task.last}")
        if index is None and task.size == 1:
            index = task.first
        state, summary, details = _task(pool, task) if index is None else _element(pool, task, index)
    view = WhyView(job=job_id, task=task_name, index=index, state=state, summary=summary, details=details)
    if task is not None:
        _add(pool, view, task, index, estimate=estimate)
    return view


def _add(pool: PoolState, view: WhyView, task: Task, index: int | None, *, estimate: bool) -> None:
    """What the view of a task or an element has besides: its place, what would help, its record."""
    element = None if index is None else task.placed.get(index)
    if element is not None and element.state == ElementState.ACTIVE:
        attempt = pool.attempts[(element.job, element.task, element.index, element.number)]
        view.placed = attempt.placed
        if attempt.state in (AttemptState.ASSIGNED, AttemptState.PREPARING):
            view.preparing_on = attempt.node
        return
    if not task.in_backlog or not task.placeable or task.job.quarantined or not pool.nodes:
        return
    if index is not None and not _may_start(task, index):
        return
    ahead = reasons.before(pool, task)
    view.place = reasons.places(pool, task, ahead)
    view.remedy = _reason(pool, task).remedy
    if task.limit is not None and not task.limit.room:
        return  # when the key comes to it, nobody can say
    own_before = _own_before(task, index)
    held = None if own_before else Reserving(pool).expect(task)
    if held is not None:
        column, at_ms = held
        node = pool.columns.entries[column].row.name
        view.expected_start, view.expected_start_is = rfc3339(at_ms), RESERVED
        view.place.append(f"node {node} is reserved for it from {view.expected_start} on")
        return
    if not estimate:
        return
    at_ms = forecast.expected_start(pool, task, ahead, own_before)
    if at_ms is not None:
        view.expected_start, view.expected_start_is = rfc3339(at_ms), ESTIMATED


def _job(pool: PoolState, job: Job) -> Reasons:
    if job.quarantined:
        return job.row.state, job.row.message or "set aside after an internal error", []
    unfinished = [task for task in job.tasks if not task.done]
    summary = f"{len(job.tasks) - len(unfinished)} of {len(job.tasks)} tasks have ended"
    if job.row.cancel_requested:
        summary += "; it was asked to cancel and waits for what still runs"
    # What moves or could move says more than what waits for it.
    telling = [task for task in unfinished if not task.pending] or unfinished
    details: list[str] = []
    for task in telling[:NAMED]:
        state, why, _ = _task(pool, task)
        details.append(f"{task.name}: {state}: {why}")
    if len(unfinished) > len(details):
        details.append(f"and {len(unfinished) - len(details)} more tasks that have not ended")
    return job.row.state, summary, details


def _task(pool: PoolState, task: Task) -> Reasons:
    if task.done:
        return outcome(task), f"it has ended: {_counts(task)}", []
    if task.pending:
        return _waiting_for_tasks(task)
    if task.fresh or has_again(task):
        state, summary, details = _queued(pool, task)
        if task.active:
            return ElementState.ACTIVE.value, f"{_counts(task)}; the next one: {summary}", details
        return state, summary, details
    if task.active:
        return ElementState.ACTIVE.value, _counts(task), []
    held = [element for element in task.placed.values() if element.not_before is not None]
    if held:
        return _held_back(pool, min(held, key=lambda element: element.not_before or 0))
    return ElementState.WAITING.value, f"its elements wait for those that they need; {_counts(task)}", []


def _counts(task: Task) -> str:
    row = task.row()
    words = ("active", "queued", "waiting", "succeeded", "failed", "cancelled", "skipped")
    counts = [(getattr(row, word), word) for word in words]
    return ", ".join(f"{count} {word}" for count, word in counts if count) + f" of {task.size}"


def _waiting_for_tasks(task: Task) -> Reasons:
    tasks = task.job.tasks
    needed = [tasks[at] for at in range(len(tasks)) if task.position in tasks[at].dependents]
    open_needs = [need for need in needed if len(need.ended[SUCCEEDED]) < need.size]
    names = ", ".join(need.name for need in open_needs[:NAMED])
    more = f" and {len(open_needs) - NAMED} more" if len(open_needs) > NAMED else ""
    details = [f"{need.name}: {_counts(need)}" for need in open_needs[:NAMED]]
    return ElementState.WAITING.value, f"it waits for {names}{more} to succeed", details


def _element(pool: PoolState, task: Task, index: int) -> Reasons:
    element = task.placed.get(index)
    if element is not None:
        if element.state == ElementState.ACTIVE:
            return _active(pool, element)
        return _held_back(pool, element) if element.not_before is not None else _queued(pool, task)
    for state, indexes in task.ended.items():
        if index in indexes:
            return state, f"it has ended: {state}", []
    if task.pending:
        return _waiting_for_tasks(task)
    if task.by_element and index not in task.ready:
        tasks = task.job.tasks
        open_needs = [
            f"{tasks[at].name}.{index}" for at in task.each_needs if index not in tasks[at].ended[SUCCEEDED]
        ]
        return ElementState.WAITING.value, f"it waits for {', '.join(open_needs)} to succeed", []
    state, summary, details = _queued(pool, task)
    if not task.by_element and index > task.next:
        before = sum(hi - lo + 1 for lo, hi in task.unplaced_ranges(task.first, index - 1))
        are = "element of its array is" if before == 1 else "elements of its array are"
        details = [f"{before} {are} before it", *details] if before else details
    return state, summary, details


def _active(pool: PoolState, element: ElementRow) -> Reasons:
    key = (element.job, element.task, element.index, element.number)
    attempt: AttemptRow = pool.attempts[key]
    node = pool.nodes[attempt.node].row.name
    details = [f"attempt {attempt_id(key)}, assigned {_ago(pool, attempt.assigned_at)}"]
    words = {
        AttemptState.ASSIGNED.value: f"it is assigned to node {node}, which has not started it yet",
        AttemptState.PREPARING.value: f"node {node} prepares its image and mounts",
        AttemptState.RUNNING.value: f"it runs on node {node}",
    }
    if attempt.started_at is not None:
        details.append(f"started {_ago(pool, attempt.started_at)}")
    if attempt.stop is not None:
        details.append(f"it was asked to stop ({attempt.stop})")
    if not pool.nodes[attempt.node].connected:
        details.append(f"node {node} is not connected at the moment")
    summary = words[attempt.state]
    if attempt.state == AttemptState.RUNNING and attempt.message is not None:
        summary = f"on node {node}: {attempt.message}"
    return ElementState.ACTIVE.value, summary, details


def _ago(pool: PoolState, then_ms: int) -> str:
    return f"{show_duration(max(0, pool.now_ms - then_ms) // 1000 * 1000)} ago"


def _held_back(pool: PoolState, element: ElementRow) -> Reasons:
    wait = show_duration(max(0, (element.not_before or 0) - pool.now_ms))
    summary = (
        f"attempt {element.number} ended ({element.message or element.reason}); "
        f"the next one may start in {wait}"
    )
    return ElementState.QUEUED.value, summary, []


def _queued(pool: PoolState, task: Task) -> Reasons:
    queued = ElementState.QUEUED.value
    if task.job.quarantined:
        return queued, "its job is quarantined, so nothing of it starts", []
    if not pool.nodes:
        return queued, "there is no node in the pool yet", []
    found = _reason(pool, task)
    return queued, found.summary, found.details


def _reason(pool: PoolState, task: Task) -> reasons.Room:
    """What keeps it from being placed: a bound, the nodes, or somebody before it; and what would help."""
    room = reasons.nodes(pool, task)
    block = reasons.blocked(pool, task)
    if block is None and room.fits:
        block = reasons.kept(pool, task) or reasons.behind(pool, task)
    if block is None:
        return room
    return room._replace(summary=block.summary, remedy=block.remedy)


def _own_before(task: Task, index: int | None) -> int:
    """How many elements of its own task go before one that is queued; of a task: before its next one."""
    if index is None or index in task.placed:
        return 0
    again = len(task.again)
    if task.by_element:
        return again + sum(hi - lo + 1 for lo, hi in task.ready.within(task.first, index - 1))
    return again + sum(hi - lo + 1 for lo, hi in task.unplaced_ranges(task.next, index - 1))


def _may_start(task: Task, index: int) -> bool:
    """Whether an element waits for nothing but its turn."""
    element = task.placed.get(index)
    if element is not None:
        return element.not_before is None
    return bool(task.unplaced_ranges(index, index)) and (not task.by_element or index in task.ready)
