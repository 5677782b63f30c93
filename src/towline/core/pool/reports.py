"""What nodes say of attempts, and what becomes of the elements."""

from __future__ import annotations

from signal import Signals

from towline.core import lifecycle
from towline.core.commands import AttemptUpdate, StopOrder, attempt_id, attempt_key
from towline.core.entries import Node, Task
from towline.core.lifecycle import backoff_ms, may_repeat_lost, may_retry
from towline.core.pool.endings import (
    CANCELLED,
    FAILED,
    SUCCEEDED,
    close_quarantined,
    end_element,
    settle_element,
)
from towline.core.pool.state import PoolState
from towline.core.rows import AttemptRow, ElementRow
from towline.model.states import SENTENCES, AttemptState, ElementState, Reason

FINISHED, LOST = AttemptState.FINISHED.value, AttemptState.LOST.value
RUNNING = AttemptState.RUNNING.value
LEARNT = (Reason.EXITED.value, Reason.TIMED_OUT.value)
"""Ends that tell how long the work takes."""
_LARGEST = 2**63 - 1
"""The largest number that a database keeps: with a larger one, no commit would succeed again."""
_LARGEST_SMALL = 2**31 - 1
"""The same of an exit code or a signal."""
_LATEST_MS = 253_402_300_799_999
"""The end of the year 9999: what is later cannot be written as a date."""


def report(pool: PoolState, node: Node, updates: tuple[AttemptUpdate, ...]) -> tuple[str, ...]:
    """Apply updates in order; returns the attempts that the node may forget."""
    forget: list[str] = []
    for update in updates:
        _apply(pool, node, update)
        if update.state in (FINISHED, LOST):
            forget.append(update.attempt)
    return tuple(forget)


def _apply(pool: PoolState, node: Node, update: AttemptUpdate) -> None:
    try:
        attempt = pool.attempts.get(attempt_key(update.attempt))
    except ValueError:
        attempt = None
    if attempt is None or attempt.node != node.row.id:
        _refuse(pool, node, update)
        return
    task = pool.jobs[attempt.job].tasks[attempt.task]
    if update.image_digest and task.image_digest is None:
        task.image_digest = update.image_digest  # what all other elements run too, wherever the tag moves
        pool.task_changed(task)
    if attempt.state == LOST:
        if update.state == LOST:
            return
        _take_back(pool, node, task, attempt)
    if update.state == FINISHED:
        finish(pool, node, task, attempt, update)
    elif update.state == LOST:
        lose(pool, node, task, attempt, update.reason or Reason.SUPERVISION_LOST, update.message)
    elif update.state != attempt.state and attempt.state != RUNNING:
        _advance(pool, task, attempt, update)
    elif update.state == attempt.state == RUNNING and update.message not in (None, attempt.message):
        attempt.message = update.message  # what it waits for, though its work is done
        pool.attempt_changed(attempt)


def _refuse(pool: PoolState, node: Node, update: AttemptUpdate) -> None:
    """The update is of no interest: a newer attempt stands, or the job is history."""
    _overtake(pool, update.attempt)
    if update.state not in (FINISHED, LOST):
        reason = Reason.SUPERSEDED.value
        pool.batch.orders.append(
            StopOrder(node=node.row.id, attempt=update.attempt, reason=reason, grace_ms=0)
        )


def _overtake(pool: PoolState, later: str) -> None:
    """A node has had a later attempt than the one that goes on: the store was restored from a backup of
    before it. The later one would stand, so that the earlier one may not: both are of no worth now."""
    try:
        job, position, index, number = attempt_key(later)
        element = pool.jobs[job].tasks[position].placed[index]
    except (ValueError, LookupError):
        return
    attempt = pool.attempts.get((job, position, index, element.number))
    if attempt is None or not element.number < number <= pool.before or element.state != ElementState.ACTIVE:
        return
    key = (job, position, index, attempt.number)
    stop = StopOrder(node=attempt.node, attempt=attempt_id(key), reason=Reason.SUPERSEDED.value, grace_ms=0)
    message = (
        f"a later attempt of it has run, number {number}: the store was restored from a backup of before"
    )
    lose(pool, pool.nodes[attempt.node], pool.task_of(attempt), attempt, Reason.SUPERVISION_LOST, message)
    pool.batch.orders.append(stop)


def _advance(pool: PoolState, task: Task, attempt: AttemptRow, update: AttemptUpdate) -> None:
    lifecycle.check(lifecycle.ATTEMPT, attempt.state, update.state)
    attempt.state = update.state
    attempt.started_at = _bounded(update.started_at, _LATEST_MS)
    attempt.image_digest = update.image_digest or attempt.image_digest
    attempt.message = update.message
    pool.attempt_changed(attempt)
    pool.event(
        f"attempt.{update.state}",
        attempt.job,
        task=task.name,
        index=attempt.index,
        number=attempt.number,
        started_at=attempt.started_at,
    )


def _take_back(pool: PoolState, node: Node, task: Task, attempt: AttemptRow) -> None:
    """A lost attempt is heard of while its element is still queued: it goes on, over limits if need be."""
    element = task.placed[attempt.index]
    lifecycle.check(lifecycle.ELEMENT, element.state, ElementState.ACTIVE)
    lifecycle.check(lifecycle.ATTEMPT, attempt.state, RUNNING)
    element.state = ElementState.ACTIVE.value
    element.losses -= 1
    element.not_before = element.reason = element.message = None
    attempt.state = RUNNING
    attempt.reason = attempt.message = attempt.finished_at = None
    task.active += 1
    key = (attempt.job, attempt.task, attempt.index, attempt.number)
    node.attempts[key] = attempt
    pool.columns.hold(node.column, task.shape, attempt.devices)
    pool.hold(task, node.column, 1)
    pool.foresight.work.started(task.load, attempt.assigned_at + task.longest_ms)
    pool.element_changed(element)
    pool.attempt_changed(attempt)
    pool.task_changed(task)
    pool.event("attempt.taken_back", attempt.job, task=task.name, index=attempt.index, number=attempt.number)


def finish(pool: PoolState, node: Node, task: Task, attempt: AttemptRow, update: AttemptUpdate) -> None:
    """An attempt has ended and it is known how."""
    attempt.exit_code = _bounded(update.exit_code, _LARGEST_SMALL)
    attempt.signal = _bounded(update.signal, _LARGEST_SMALL)
    attempt.started_at = _bounded(update.started_at, _LATEST_MS) or attempt.started_at
    attempt.finished_at = _bounded(update.finished_at, _LATEST_MS) or pool.now_ms
    attempt.peak_memory_bytes = _bounded(update.peak_memory_bytes)
    attempt.cpu_ms = _bounded(update.cpu_ms)
    attempt.image_digest = update.image_digest or attempt.image_digest
    reason = update.reason or Reason.EXITED.value
    element = _end_attempt(pool, node, task, attempt, FINISHED, reason, update.message)
    if reason in LEARNT and attempt.started_at is not None:
        pool.learn(task, max(0, attempt.finished_at - attempt.started_at))
    element.exit_code = attempt.exit_code
    succeeded = reason == Reason.EXITED and update.exit_code == 0
    if succeeded:
        element.reason = None
        _end(pool, task, element, attempt, SUCCEEDED)
    elif reason == Reason.CANCELLED or (reason == Reason.PREEMPTED and attempt.stop == Reason.CANCELLED):
        _end(pool, task, element, attempt, CANCELLED)
    elif attempt.stop == Reason.PREEMPTED and reason == Reason.PREEMPTED:
        _requeue(pool, task, element, attempt, 0)
    elif attempt.stop is None and may_retry(task.spec.retries, reason, element.failures + 1):
        element.failures += 1
        key = (attempt.job, attempt.task, attempt.index, attempt.number)
        wait = backoff_ms(task.spec.retries.backoff, element.failures, attempt_id(key))
        _requeue(pool, task, element, attempt, wait)
    else:
        _end(pool, task, element, attempt, FAILED)


def _bounded(number: int | None, most: int = _LARGEST) -> int | None:
    """A number that a node claims, as far as it can be one of its kind and be kept."""
    return None if number is None or number < 0 else min(number, most)


def finish_unheard(pool: PoolState, node: Node, task: Task, attempt: AttemptRow) -> None:
    """An attempt that a node never heard of need not be stopped there."""
    key = (attempt.job, attempt.task, attempt.index, attempt.number)
    update = AttemptUpdate(attempt=attempt_id(key), state=FINISHED, reason=attempt.stop)
    finish(pool, node, task, attempt, update)


def lose(
    pool: PoolState, node: Node, task: Task, attempt: AttemptRow, reason: str, message: str | None
) -> None:
    """Nobody knows how an attempt ended; it is tried again as often as ``retries.lost`` says."""
    attempt.finished_at = pool.now_ms
    element = _end_attempt(pool, node, task, attempt, LOST, reason, message)
    if attempt.stop == Reason.CANCELLED:
        element.reason = Reason.CANCELLED.value
        _end(pool, task, element, attempt, CANCELLED)
    elif may_repeat_lost(task.spec.retries, element.losses + 1):
        element.losses += 1
        key = (attempt.job, attempt.task, attempt.index, attempt.number)
        if attempt.number > pool.before:  # else a later one may be somewhere
            pool.attempts[key] = attempt  # it may be taken back as long as the element is queued
        _requeue(pool, task, element, attempt, 0)
    else:
        _end(pool, task, element, attempt, FAILED)


def _end_attempt(
    pool: PoolState,
    node: Node,
    task: Task,
    attempt: AttemptRow,
    state: str,
    reason: str,
    message: str | None,
) -> ElementRow:
    """The attempt's own part of its end; its element gets the reason and stays active for now."""
    lifecycle.check(lifecycle.ATTEMPT, attempt.state, state)
    attempt.state, attempt.reason = state, str(reason)
    attempt.message = message or _message(attempt)
    key = (attempt.job, attempt.task, attempt.index, attempt.number)
    pool.attempts.pop(key, None)
    del node.attempts[key]
    pool.give_back(task, node.column, attempt)
    pool.attempt_changed(attempt)
    element = task.placed[attempt.index]
    element.reason, element.message = attempt.reason, attempt.message
    return element


def _requeue(pool: PoolState, task: Task, element: ElementRow, attempt: AttemptRow, wait_ms: int) -> None:
    lifecycle.check(lifecycle.ELEMENT, element.state, ElementState.QUEUED)
    element.state = ElementState.QUEUED.value
    task.active -= 1
    if wait_ms:
        pool.hold_back(element, pool.now_ms + wait_ms)
    elif not task.job.quarantined:
        pool.queue_again(task, element.index)
    pool.element_changed(element)
    pool.task_changed(task)
    _tell_end(pool, task, element, attempt)


def _end(pool: PoolState, task: Task, element: ElementRow, attempt: AttemptRow, state: str) -> None:
    if task.job.quarantined:
        # What followed from an end may be what failed: nothing is set off in such a job.
        settle_element(pool, task, element, state)
        pool.task_changed(task)
        _tell_end(pool, task, element, attempt)
        close_quarantined(pool, task.job)
        return
    # The attempt's fact comes before those that follow from it.
    _tell_end(pool, task, element, attempt, state)
    end_element(pool, task, element, state)


def _tell_end(
    pool: PoolState, task: Task, element: ElementRow, attempt: AttemptRow, state: str | None = None
) -> None:
    pool.event(
        f"attempt.{attempt.state}",
        attempt.job,
        task=task.name,
        index=attempt.index,
        number=attempt.number,
        reason=attempt.reason,
        message=attempt.message,
        exit_code=attempt.exit_code,
        signal=attempt.signal,
        assigned_at=attempt.assigned_at,
        started_at=attempt.started_at,
        finished_at=attempt.finished_at,
        element_state=state or element.state,
    )


def _message(attempt: AttemptRow) -> str | None:
    """What to say of an end that the node sent no words with."""
    if attempt.reason != Reason.EXITED:
        return next((SENTENCES[reason] for reason in SENTENCES if reason == attempt.reason), None)
    if attempt.signal is not None:
        try:
            name = Signals(attempt.signal).name
        except ValueError:
            name = "unknown"
        return f"killed by signal {attempt.signal} ({name})"
    if attempt.exit_code:
        return f"exited with code {attempt.exit_code}"
    return None
