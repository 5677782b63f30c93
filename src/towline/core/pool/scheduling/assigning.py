"""Elements that become active on a node: their rows, their attempts, what they hold, their orders."""

from __future__ import annotations

from msgspec.structs import replace

from towline.core.commands import StartOrder
from towline.core.entries import Node, Task
from towline.core.pool.state import PoolState
from towline.core.queues.backlog import take_again, take_fresh
from towline.core.rows import AttemptRow, ElementRow, unplaced_element
from towline.model.states import AttemptState, ElementState

ACTIVE, QUEUED = ElementState.ACTIVE.value, ElementState.QUEUED.value
ASSIGNED = AttemptState.ASSIGNED.value

_ELEMENT = unplaced_element("", 0, 0, QUEUED)
_ATTEMPT = AttemptRow(
    job="",
    task=0,
    index=0,
    number=0,
    node="",
    state=ASSIGNED,
    stop=None,
    reason=None,
    message=None,
    exit_code=None,
    signal=None,
    assigned_at=0,
    started_at=None,
    finished_at=None,
    peak_memory_bytes=None,
    cpu_ms=None,
    image_digest=None,
)
"""Copied and filled in: a third of the time that it takes to make a row from keywords."""


def assign(pool: PoolState, task: Task, node: Node, most: int, placed: str) -> int:
    """Up to ``most`` elements of a task, those queued again first, become active on a node with room
    for them. ``placed`` is the record of why. Returns how many."""
    chosen: list[ElementRow] = []
    while len(chosen) < most:
        index = take_again(task)
        if index is None:
            break
        # Active at once: the index may stand in the heap a second time, stale from then on.
        element = task.placed[index]
        _activate(pool, task, element)
        chosen.append(element)
    for index in take_fresh(task, most - len(chosen)):
        element = replace(_ELEMENT)
        element.job, element.task, element.index = task.job.row.id, task.position, index
        task.placed[index] = element
        _activate(pool, task, element)
        chosen.append(element)
    if chosen:
        _order(pool, task, node, chosen, placed)
    return len(chosen)


def _activate(pool: PoolState, task: Task, element: ElementRow) -> None:
    if element.number:
        # A lost attempt can be taken back only until here: from now on the new one stands.
        pool.attempts.pop((element.job, element.task, element.index, element.number), None)
        element.reason = element.message = element.exit_code = None
    element.number = max(element.number, pool.before) + 1
    element.state = ACTIVE
    task.active += 1


def _order(pool: PoolState, task: Task, node: Node, chosen: list[ElementRow], placed: str) -> None:
    count = len(chosen)
    devices = pool.columns.take(node.column, task.shape, count)
    pool.hold(task, node.column, count)
    pool.foresight.work.started(task.load * count, pool.now_ms + task.longest_ms)
    pool.task_changed(task)
    job, position, node_id, now_ms = task.job.row.id, task.position, node.row.id, pool.now_ms
    batch, attempts, on_node = pool.batch, pool.attempts, node.attempts
    orders = batch.orders
    told: list[list[int]] = []
    for element, device in zip(chosen, devices, strict=True):
        index, number = element.index, element.number
        attempt = replace(_ATTEMPT)
        attempt.job, attempt.task, attempt.index, attempt.number = job, position, index, number
        attempt.node, attempt.assigned_at, attempt.devices, attempt.placed = node_id, now_ms, device, placed
        key = (job, position, index, number)
        attempts[key] = on_node[key] = batch.attempts[key] = attempt
        batch.elements[(job, position, index)] = element
        orders.append(
            StartOrder(node=node_id, job=job, task=position, index=index, number=number, devices=device)
        )
        told.append([index, number])
    pool.event("elements.assigned", job, task=task.name, node=node_id, elements=told)
