"""Rows of the store as the API shows them."""

from __future__ import annotations

from towline.core.commands import attempt_id
from towline.core.rows import AttemptRow, ElementRow, JobRow, RangeRow, TaskRow
from towline.model.job import TaskSpec
from towline.model.states import ENDED, SENTENCES, ElementState, Reason
from towline.model.units import rfc3339, rfc3339_or_null
from towline.model.views import AttemptView, ElementView, JobView, TaskView

STATES = tuple(state.value for state in ElementState)


def sentence(message: str | None, reason: str | None) -> str | None:
    """What to tell people: the message where there is one, else what the reason means."""
    if message is not None or reason is None:
        return message
    try:
        return SENTENCES.get(Reason(reason))
    except ValueError:
        return None


def counts_of(row: TaskRow) -> dict[str, int]:
    return {state: getattr(row, state) for state in STATES}


def task_state(row: TaskRow) -> str:
    """That of its most advanced unended elements, or, when all have ended, the worst end among them."""
    for state in ("active", "queued", "waiting", "failed", "cancelled", "skipped"):
        if getattr(row, state):
            return state
    return ElementState.SUCCEEDED.value


def attempt_view(row: AttemptRow) -> AttemptView:
    return AttemptView(
        id=attempt_id((row.job, row.task, row.index, row.number)),
        number=row.number,
        node=row.node,
        state=row.state,
        reason=row.reason,
        message=sentence(row.message, row.reason),
        exit_code=row.exit_code,
        signal=row.signal,
        assigned_at=rfc3339(row.assigned_at),
        started_at=rfc3339_or_null(row.started_at),
        finished_at=rfc3339_or_null(row.finished_at),
        peak_memory_bytes=row.peak_memory_bytes,
        cpu_seconds=None if row.cpu_ms is None else row.cpu_ms / 1000,
        image_digest=row.image_digest,
        devices=row.devices,
        placed=row.placed,
    )


def element_view(row: ElementRow, attempts: list[AttemptRow]) -> ElementView:
    message = sentence(row.message, None)
    if message is None and row.state != ElementState.SUCCEEDED:
        last = attempts[-1] if attempts else None
        message = last.message if last is not None and last.reason == row.reason else None
        message = sentence(message, row.reason)
    return ElementView(
        index=row.index,
        state=row.state,
        reason=row.reason,
        message=message,
        exit_code=row.exit_code,
        attempts=[attempt_view(attempt) for attempt in attempts],
    )


def ranged_view(index: int, row: RangeRow) -> ElementView:
    return ElementView(
        index=index,
        state=row.state,
        reason=row.reason,
        message=sentence(row.message, row.reason),
        exit_code=None,
        attempts=[],
    )


def unplaced_view(index: int, state: str) -> ElementView:
    return ElementView(index=index, state=state, reason=None, message=None, exit_code=None, attempts=[])


def task_view(
    row: TaskRow,
    spec: TaskSpec,
    elements: list[ElementView],
    next_cursor: str | None,
    known: list[ElementView] | None = None,
) -> TaskView:
    """A task with its elements; ``known``: those that tell why it failed, where they are not shown."""
    state = task_state(row)
    size = row.last - row.first + 1
    reason = message = None
    if state in ENDED and state != ElementState.SUCCEEDED:
        count = getattr(row, state)
        worst = next((element for element in known or elements if element.state == state), None)
        reason = worst.reason if worst is not None else None
        message = worst.message if worst is not None and size == 1 else None
        if size > 1:
            message = f"{count} of {size} elements {state}"
    return TaskView(
        name=row.name,
        state=state,
        reason=reason,
        message=message,
        size=size,
        needs=[need.task for need in spec.needs],
        counts=counts_of(row),
        elements=elements,
        next_cursor=next_cursor,
    )


def job_view(row: JobRow, labels: dict[str, str], counts: dict[str, int], tasks: list[TaskView]) -> JobView:
    return JobView(
        id=row.id,
        name=row.name,
        namespace=row.namespace,
        state=row.state,
        reason=row.reason,
        message=sentence(row.message, row.reason),
        priority=row.priority,
        labels=labels,
        submitted_at=rfc3339(row.submitted_at),
        ended_at=rfc3339_or_null(row.ended_at),
        cancel_requested=row.cancel_requested,
        counts=counts,
        tasks=tasks,
        queue=row.queue,
        pool=row.pool,
    )


def total(rows: list[TaskRow]) -> dict[str, int]:
    """Elements of a whole job, by state."""
    counts = dict.fromkeys(STATES, 0)
    for row in rows:
        for state in STATES:
            counts[state] += getattr(row, state)
    return counts
