"""Nodes that an operator takes out of service: drained for a while, or forgotten for good."""

from __future__ import annotations

from towline.core.commands import Drain, ForgetNode, StopOrder, Undrain, attempt_id
from towline.core.entries import Node
from towline.core.pool.reports import lose
from towline.core.pool.state import PoolState
from towline.core.rows import AttemptRow
from towline.errors import NotFound, RequestError
from towline.model.states import Reason

FORGOTTEN = "forgotten"
"""The state of a node that was taken out for good; it is shown nowhere."""
_MOST_NAMED = 20


def find_node(pool: PoolState, name: str) -> Node:
    """The node of this id or name. Raises NotFound, also where several have the name."""
    known = [node for node in pool.nodes.values() if node.row.state != FORGOTTEN]
    found = [node for node in known if node.row.id == name]
    found = found or [node for node in known if node.row.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(node.row.id for node in found)
        raise NotFound(f"Several nodes are named {name}: say which by its id: {ids}.")
    names = sorted(node.row.name for node in known)
    more = ", …" if len(names) > _MOST_NAMED else ""
    listed = f"the nodes are {', '.join(names[:_MOST_NAMED])}{more}" if names else "there are none"
    raise NotFound(f"There is no node {name!r}: {listed}.")


def drain(pool: PoolState, command: Drain) -> None:
    node = find_node(pool, command.node)
    row = node.row
    row.drain_at = pool.now_ms if row.drain_at is None else row.drain_at
    row.drain_until = None if command.deadline_ms is None else pool.now_ms + command.deadline_ms
    pool.node_refreshed(node)
    pool.node_changed(node)
    pool.event("node.drain", None, node=row.id, name=row.name, until=row.drain_until)
    move_on(pool)


def undrain(pool: PoolState, command: Undrain) -> None:
    node = find_node(pool, command.node)
    if node.row.drain_at is None:
        return
    node.row.drain_at = node.row.drain_until = None
    pool.node_refreshed(node)
    pool.node_changed(node)
    pool.event("node.undrain", None, node=node.row.id, name=node.row.name)


def move_on(pool: PoolState) -> None:
    """Stop what still runs on nodes whose deadline has come; it is queued again when it has ended."""
    for node in pool.nodes.values():
        until = node.row.drain_until
        if until is None or until > pool.now_ms:
            continue
        for attempt in list(node.attempts.values()):
            if attempt.stop is None:
                _preempt(pool, node, attempt)


def _preempt(pool: PoolState, node: Node, attempt: AttemptRow) -> None:
    attempt.stop = Reason.PREEMPTED.value
    pool.attempt_changed(attempt)
    key = (attempt.job, attempt.task, attempt.index, attempt.number)
    grace_ms = pool.jobs[attempt.job].tasks[attempt.task].spec.grace_ms
    order = StopOrder(
        node=node.row.id, attempt=attempt_id(key), reason=Reason.PREEMPTED.value, grace_ms=grace_ms
    )
    pool.batch.orders.append(order)


def forget(pool: PoolState, command: ForgetNode) -> None:
    node = find_node(pool, command.node)
    if node.connected:
        raise RequestError(
            f"Node {node.row.name} is connected: drain it, end its agent (tow agent), then forget it."
        )
    for attempt in list(node.attempts.values()):
        task = pool.jobs[attempt.job].tasks[attempt.task]
        lose(pool, node, task, attempt, Reason.NODE_LOST, f"node {node.row.name} was given up by an operator")
    node.row.state = FORGOTTEN
    node.row.drain_at = node.row.drain_until = None
    pool.node_refreshed(node)
    pool.node_changed(node)
    pool.event("node.forgotten", None, node=node.row.id, name=node.row.name)
