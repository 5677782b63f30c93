"""The pool as a deterministic machine: the one entrance to everything in this package.

A leader applies the commands that have arrived, runs the pass, and collects the changes of the
batch: rows and events for one commit, and orders that may be sent after it. The same commands
with the same times give the same changes in every process.
"""

from __future__ import annotations

from collections.abc import Iterable

from towline.core.commands import (
    Cancel,
    Command,
    DeleteQueue,
    Drain,
    ForgetNode,
    LeaseShortened,
    Maintain,
    NodeDown,
    NodeUp,
    Order,
    Quarantine,
    Report,
    Retry,
    SetPriority,
    SetQueue,
    Submit,
    Undrain,
)
from towline.core.entries import Node
from towline.core.lease import Silence
from towline.core.placement.choosing.rules import Rules
from towline.core.placement.columns import CPU, MEMORY
from towline.core.placement.ledger import WHOLE_MILLI, Ledger
from towline.core.pool import (
    draining,
    explain,
    loading,
    membership,
    placing,
    planning,
    queueing,
    repair,
    reports,
    submission,
)
from towline.core.pool.scheduling import offering
from towline.core.pool.state import Batch, PoolState
from towline.core.queues.changing import find
from towline.core.queues.views import show
from towline.core.routing import Offer
from towline.core.rows import Changes, NodeRow, PoolSnapshot
from towline.errors import NotFound
from towline.model.job import JobSpec
from towline.model.units import rfc3339_or_null
from towline.model.views import GpuView, NodeView, PlanView, QueueView, WhyView


class Pool:
    """One pool in memory. Not thread-safe; nothing in it waits or does I/O."""

    def __init__(self, state: PoolState) -> None:
        self._state = state
        self._looked_at = state.now_ms

    @classmethod
    def load(
        cls, snapshot: PoolSnapshot, now_ms: int, rules: Rules | None = None, silence: Silence | None = None
    ) -> Pool:
        """The pool that the committed rows describe. ``rules``: how it places; they may have a memory, so
        each pool has its own. ``silence``: what becomes of silent nodes. None: the usual ones."""
        return cls(loading.load(snapshot, now_ms, rules, silence))

    @property
    def name(self) -> str:
        return self._state.name

    @property
    def state(self) -> PoolState:
        """The memory itself, for ``invariants`` and ``explain``; it is not to be changed."""
        return self._state

    def apply(self, command: Command, now_ms: int) -> tuple[str, ...]:
        """Apply one command. The answer of NodeUp and Report is what the node may forget, that of Retry
        what runs again.

        Raises RequestError where the command is refused: then nothing has changed.
        """
        state = self._state
        # Time never goes back, whatever the clock that it comes from does.
        state.now_ms = max(state.now_ms, now_ms)
        match command:
            case Report():
                return self._report(command)
            case Submit():
                submission.submit(state, command)
            case Cancel():
                submission.cancel(state, command)
            case Retry():
                return repair.retry(state, command)
            case NodeUp():
                # Thousands may come at once; each look goes over all of them.
                if state.now_ms - self._looked_at >= membership.TICK_MS:
                    self._look()
                return membership.join(state, command)
            case NodeDown():
                membership.leave(state, command.node)
            case Maintain():
                return membership.maintain(state, command.lease_ms)
            case LeaseShortened():
                membership.shortened(state, command.node)
            case Drain():
                draining.drain(state, command)
            case Undrain():
                draining.undrain(state, command)
            case ForgetNode():
                draining.forget(state, command)
            case Quarantine():
                submission.quarantine(state, command)
            case SetQueue():
                queueing.set_queue(state, command)
            case DeleteQueue():
                queueing.delete_queue(state, command)
            case SetPriority():
                queueing.set_priority(state, command)
            case _:
                self._look()
        return ()

    def _report(self, command: Report) -> tuple[str, ...]:
        node = self._state.nodes.get(command.node)
        if node is None:
            raise NotFound(f"there is no node {command.node!r}: it has to say Hello first")
        node.heard_at = self._state.now_ms
        return reports.report(self._state, node, command.updates)

    def _look(self) -> None:
        membership.look(self._state, self._looked_at)
        draining.move_on(self._state)
        self._looked_at = self._state.now_ms

    def schedule(self, now_ms: int) -> None:
        """The scheduling pass (see ``placing.py``)."""
        state = self._state
        state.now_ms = max(state.now_ms, now_ms)
        placing.release_due(state)
        placing.place(state)

    def collect(self) -> tuple[Changes, list[Order]]:
        """End the batch: its changes, for one commit, and its orders, to be sent after that."""
        state = self._state
        batch, state.batch = state.batch, Batch()
        return batch.changes(state.event_no, state.job_seq, state.foresight), batch.orders

    def heard(self, node: str, now_ms: int) -> bool:
        """A heartbeat of a node; nothing is written for it. Returns whether it may be answered."""
        return membership.hear(self._state, node, now_ms)

    def lease_ms(self, node: str) -> int:
        """For how long a node's lease may last beyond the usual; 0: not."""
        return self._state.nodes[node].row.lease_ms

    def next_wakeup_ms(self) -> int | None:
        """When a Tick is useful next; None: not before another command."""
        state = self._state
        when = [state.timers[0][0]] if state.timers else []
        if any(membership.is_watched(node) for node in state.nodes.values()):
            when.append(self._looked_at + membership.TICK_MS)
        return min(when) if when else None

    def explain(self, job: str, task: str | None, index: int | None) -> WhyView:
        """Why a job, a task or an element is where it is. Raises NotFound."""
        return explain.explain(self._state, job, task, index)

    @property
    def active_count(self) -> int:
        """Elements that hold their part of a node, in all queues."""
        return sum(queue.active for queue in self._state.queues.top)

    @property
    def unfinished_jobs(self) -> int:
        return sum(not job.quarantined for job in self._state.jobs.values())

    @property
    def event_no(self) -> int:
        """The number of the newest event, committed or not."""
        return self._state.event_no

    def orders_for(self, node_id: str) -> list[Order]:
        """All orders that stand for a node, as its attempts say."""
        node = self._state.nodes.get(node_id)
        if node is None:
            return []
        return [
            membership.start_order(node, attempt)
            for attempt in node.attempts.values()
            if attempt.state == "assigned" and attempt.stop is None
        ]

    def queues_view(self) -> list[QueueView]:
        """All queues as they stand, in order of their names."""
        return self._show(self._state.queues.queues)

    def queue_view(self, name: str) -> QueueView:
        """One queue. Raises NotFound."""
        find(self._state.queues, name)
        return self._show([name])[0]

    def _show(self, names: Iterable[str]) -> list[QueueView]:
        state = self._state
        views = show(state.queues, state.backlog, state.capacity, names)
        for view in views:
            view.pool = state.name
            view.order = state.columns.rules.order.name
            view.usage_half_life_s = state.usages.half_life_ms / 1000
        return views

    def plan(self, spec: JobSpec, namespace: str) -> PlanView:
        """Where everything of a job would go now; nothing changes. Raises InvalidDocument."""
        return planning.plan(self._state, spec, namespace)

    def offer(self, spec: JobSpec, namespace: str) -> Offer:
        """What the pool would make of a job, beside other pools; nothing changes."""
        return offering.offer(self._state, spec, namespace)

    def node_id(self, name: str) -> str:
        """The id of the node of this id or name. Raises NotFound."""
        return draining.find_node(self._state, name).row.id

    def nodes_view(self) -> list[NodeView]:
        shown = [node for node in self._state.nodes.values() if node.row.state != draining.FORGOTTEN]
        return [_node_view(self._state, node) for node in shown]


def _node_view(state: PoolState, node: Node) -> NodeView:
    columns, row = state.columns, node.row
    return NodeView(
        id=row.id,
        name=row.name,
        state=_shown_state(node),
        cpu=row.cpu_milli / 1000,
        cpu_free=int(columns.free_amounts[CPU, node.column]) / 1000,
        memory_bytes=row.memory_bytes,
        memory_free_bytes=int(columns.free_amounts[MEMORY, node.column]),
        labels=row.labels,
        runtimes=row.runtimes,
        gpus=_gpus(row, columns.ledgers.get(node.column)),
        taints=list(row.taints),
        protects={name: list(given) for name, given in row.protects.items()},
        disk_bytes=row.disk_bytes,
        drain_at=rfc3339_or_null(row.drain_at),
        drain_until=rfc3339_or_null(row.drain_until),
        active=len(node.attempts),
        pool=state.name,
    )


def _shown_state(node: Node) -> str:
    """``lost``, ``disconnected``, ``draining`` or ``ready``."""
    if node.row.state != "ready":
        return node.row.state
    if not node.connected:
        return "disconnected"
    return "ready" if node.row.drain_at is None else "draining"


def _gpus(row: NodeRow, ledger: Ledger | None) -> list[GpuView]:
    """The devices of a node in its own order, with what is free of each."""
    held = {} if ledger is None else ledger.held
    return [
        GpuView(
            id=gpu.id,
            model=gpu.model,
            memory_bytes=gpu.memory_bytes,
            slice=gpu.slice,
            free_milli=max(0, WHOLE_MILLI - held.get(gpu.id, 0)),
        )
        for gpu in row.gpus
    ]
