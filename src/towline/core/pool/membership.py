"""Nodes that come, go silent, are lost and come back."""

from __future__ import annotations

from towline.core.commands import NodeUp, StartOrder, StopOrder, attempt_id
from towline.core.entries import Node
from towline.core.lease import PROTECTION
from towline.core.pool.reports import finish_unheard, lose, report
from towline.core.pool.state import PoolState
from towline.core.rows import AttemptRow, NodeRow
from towline.errors import Outdated
from towline.model.states import AttemptState, Reason

TICK_MS = 2_000
"""How often silence is looked at."""
PAUSE_MS = 2_000
"""A look that comes so much late means that this process itself stood still, not the nodes."""

READY, NODE_LOST = "ready", "lost"


def is_outdated(row: NodeRow, held: NodeRow) -> bool:
    """Whether a node said ``row`` before ``held``: on a link that it has given up, where the network was
    slow. What it did not know then it may well run now."""
    return row.boot_id == held.boot_id and 0 < row.said_ms < held.said_ms


def join(pool: PoolState, command: NodeUp) -> tuple[str, ...]:
    """A node has opened its link; returns the attempts that it may forget. Raises Outdated."""
    row = command.node
    node = pool.nodes.get(row.id)
    if node is not None and is_outdated(row, node.row):
        raise Outdated(f"Node {row.name} has opened another link since.")
    if node is None:
        node = add_node(pool, row, connected=True)
    elif node.row.instance != row.instance:
        message = "its node came back without any memory of it (its journal is another one)"
        for attempt in list(node.attempts.values()):
            lose(pool, node, pool.task_of(attempt), attempt, Reason.SUPERVISION_LOST, message)
    row.drain_at, row.drain_until = node.row.drain_at, node.row.drain_until
    row.lease_ms = node.row.lease_ms
    node.row = row
    row.state = READY
    node.connected = True
    node.heard_at = pool.now_ms
    pool.node_refreshed(node)
    pool.node_changed(node)
    pool.event("node.up", None, node=row.id, name=row.name)
    forget = report(pool, node, command.known)
    _reconcile(pool, node, {update.attempt for update in command.known})
    return forget


def add_node(pool: PoolState, row: NodeRow, connected: bool) -> Node:
    node = Node(row=row, column=len(pool.nodes), connected=connected, heard_at=pool.now_ms)
    pool.nodes[row.id] = node
    pool.columns.add(node)
    pool.count_node(node)
    return node


def _reconcile(pool: PoolState, node: Node, known: set[str]) -> None:
    """What the pool has on the node beside what the node knows: orders that never arrived are given
    again, wishes to stop are repeated, and what ran, or may have, and is unknown is lost."""
    for key, attempt in list(node.attempts.items()):
        name = attempt_id(key)
        task = pool.jobs[attempt.job].tasks[attempt.task]
        if name in known:
            if attempt.stop is not None:
                pool.batch.orders.append(stop_order(node, attempt, task.spec.grace_ms))
        elif attempt.state == AttemptState.RUNNING:
            message = "its node came back without any memory of it"
            lose(pool, node, task, attempt, Reason.SUPERVISION_LOST, message)
        elif attempt.number <= pool.before:
            message = (
                "its node does not know it (any more), and the store is one of before: it may have ended"
            )
            lose(pool, node, task, attempt, Reason.SUPERVISION_LOST, message)
        elif attempt.stop is not None:
            finish_unheard(pool, node, task, attempt)
        else:
            pool.batch.orders.append(start_order(node, attempt))


def start_order(node: Node, attempt: AttemptRow) -> StartOrder:
    return StartOrder(
        node=node.row.id,
        job=attempt.job,
        task=attempt.task,
        index=attempt.index,
        number=attempt.number,
        devices=attempt.devices,
    )


def stop_order(node: Node, attempt: AttemptRow, grace_ms: int) -> StopOrder:
    key = (attempt.job, attempt.task, attempt.index, attempt.number)
    reason = attempt.stop or Reason.CANCELLED.value
    return StopOrder(node=node.row.id, attempt=attempt_id(key), reason=reason, grace_ms=grace_ms)


def leave(pool: PoolState, node_id: str) -> None:
    """A node's link has closed: nothing new goes there, and its silence counts."""
    node = pool.nodes.get(node_id)
    if node is not None and node.connected:
        node.connected = False
        pool.node_refreshed(node)


def maintain(pool: PoolState, lease_ms: int) -> tuple[str, ...]:
    """The nodes that are there, and know leases, may have one of this length from now on."""
    found = [
        node
        for node in pool.nodes.values()
        if node.connected
        and node.row.state == READY
        and any(PROTECTION in given for given in node.row.protects.values())
    ]
    for node in found:
        node.row.lease_ms = lease_ms
        pool.node_changed(node)
    return tuple(node.row.id for node in found)


def shortened(pool: PoolState, node_id: str) -> None:
    """Its lease is the usual one again."""
    node = pool.nodes.get(node_id)
    if node is not None and node.row.lease_ms:
        node.row.lease_ms = 0
        pool.node_changed(node)


def hear(pool: PoolState, node_id: str, now_ms: int) -> bool:
    """A heartbeat: memory only. Not to be answered where the node was declared lost: its lease would go on,
    and what it had may run elsewhere. It has to say first what it has."""
    node = pool.nodes.get(node_id)
    if node is None or node.row.state != READY:
        return False
    node.heard_at = now_ms
    return True


def is_watched(node: Node) -> bool:
    """Whether its silence may change anything."""
    return node.row.state == READY or (node.row.state == NODE_LOST and bool(node.attempts))


def look(pool: PoolState, looked_at_ms: int) -> None:
    """Declare lost what has been silent too long. ``looked_at_ms`` is when this was last done."""
    late = pool.now_ms - looked_at_ms - TICK_MS
    for node in pool.nodes.values():
        if late > PAUSE_MS:
            node.heard_at += late
        if is_watched(node) and pool.now_ms - node.heard_at >= pool.silence.first_ms:
            _silent(pool, node)


def _silent(pool: PoolState, node: Node) -> None:
    """It is lost, and so is what need not, or not any longer, be waited for."""
    silent_ms = pool.now_ms - node.heard_at
    if node.row.state == READY:
        node.row.state = NODE_LOST
        pool.node_refreshed(node)
        pool.node_changed(node)
        pool.event("node.lost", None, node=node.row.id, name=node.row.name, silent_s=silent_ms // 1000)
    message = f"node {node.row.name} has been silent for {silent_ms // 1000} s"
    for attempt in list(node.attempts.values()):
        task = pool.task_of(attempt)
        after_ms = pool.silence.after_ms(task.spec.on_disconnect, node.row.lease_ms)
        if after_ms is not None and silent_ms >= after_ms:
            lose(pool, node, task, attempt, Reason.NODE_LOST, message)
