"""A workload on a cluster under one policy, in virtual time.

At each time at which something happens, in this order: what ends, what is cancelled, what arrives, one
pass. The pool is that of production; what nodes and users would say to it is said here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from towline.core.backfill import NEVER_MS
from towline.core.commands import (
    AttemptKey,
    AttemptUpdate,
    NodeUp,
    Report,
    StartOrder,
    StopOrder,
    Submit,
    attempt_id,
    attempt_key,
)
from towline.core.placement.choosing.rules import Rules
from towline.core.pool import Pool
from towline.core.queues.changing import unknown
from towline.core.rows import NodeRow
from towline.errors import InvalidDocument, NotFound, Problem
from towline.simulation.described.policies import Setup
from towline.simulation.replay.record import Record
from towline.simulation.replay.workload import Ending, Workload
from towline.simulation.traces.inflation import empty_pool

Progress = Callable[[int], None]


class _Running(NamedTuple):
    node: str
    began_ms: int
    ending: Ending


def check_queues(workload: Workload, setup: Setup) -> None:
    """Whether the policy's queues can be made and take the workload's jobs. Raises RequestError."""
    tree = _with_queues(empty_pool(), workload, setup).state.queues
    for name in dict.fromkeys(one.spec.queue for one in workload.submissions):
        problem, remedy = unknown(tree, name)
        if problem:
            raise InvalidDocument([Problem(f"policy {setup.name!r}", problem, remedy)])


def replay(
    workload: Workload,
    nodes: Sequence[NodeRow],
    setup: Setup,
    rules: Rules,
    progress: Progress | None = None,
) -> Record:
    """The whole workload, to the last end. ``rules`` are new; ``progress`` is told how many elements have
    started.

    Raises RequestError where ``check_queues`` does.
    """
    return _Replay(workload, nodes, setup, empty_pool(rules)).run(progress)


class _Replay:
    def __init__(self, workload: Workload, nodes: Sequence[NodeRow], setup: Setup, pool: Pool) -> None:
        self._workload = workload
        self._pool = pool
        self._ends: list[tuple[int, AttemptKey]] = []
        self._running: dict[AttemptKey, _Running] = {}
        # Before anything is known of the namespaces, nothing of their usage has to be settled.
        pool.state.usages.half_life_ms = setup.half_life_ms
        _with_queues(pool, workload, setup)
        for node in nodes:
            pool.apply(NodeUp(node=node), 0)
        pool.collect()
        self.record = Record(pool, workload)

    def run(self, progress: Progress | None) -> Record:
        submissions, cancels = self._workload.submissions, self._workload.cancels
        at = cancelled = 0
        while (now := self._next(at, cancelled)) < NEVER_MS:
            self.record.pass_time(now)
            self._end_until(now)
            while cancelled < len(cancels) and cancels[cancelled][0] <= now:
                self._cancel(cancelled, now)
                cancelled += 1
            while at < len(submissions) and submissions[at].at_ms <= now:
                self._submit(at, now)
                at += 1
            self._pass(now)
            if progress is not None:
                progress(len(self.record.starts))
        self.record.finish()
        return self.record

    def _next(self, at: int, cancelled: int) -> int:
        """When something happens next."""
        submissions, cancels = self._workload.submissions, self._workload.cancels
        timers = self._pool.state.timers
        while self._ends and self._ends[0][1] not in self._running:
            heappop(self._ends)  # it was stopped before
        return min(
            self._ends[0][0] if self._ends else NEVER_MS,
            submissions[at].at_ms if at < len(submissions) else NEVER_MS,
            cancels[cancelled][0] if cancelled < len(cancels) else NEVER_MS,
            timers[0][0] if timers else NEVER_MS,
        )

    def _submit(self, at: int, now_ms: int) -> None:
        one = self._workload.submissions[at]
        self._pool.apply(Submit(job=one.job, namespace=one.namespace, spec=one.spec), now_ms)
        self.record.submitted(one)

    def _cancel(self, at: int, now_ms: int) -> None:
        with contextlib.suppress(NotFound):  # here it has ended before
            self._pool.apply(self._workload.cancels[at][1], now_ms)

    def _end_until(self, now_ms: int) -> None:
        reports: dict[str, list[AttemptUpdate]] = {}
        while self._ends and self._ends[0][0] <= now_ms:
            at_ms, key = heappop(self._ends)
            running = self._running.pop(key, None)
            if running is not None:
                reports.setdefault(running.node, []).append(_finished(key, running, at_ms))
        for node, updates in reports.items():
            self._pool.apply(Report(node=node, updates=tuple(updates)), now_ms)

    def _pass(self, now_ms: int) -> None:
        self._pool.schedule(now_ms)
        changes, orders = self._pool.collect()
        self.record.happened(changes, now_ms)
        stopped: dict[str, list[AttemptUpdate]] = {}
        for order in orders:
            if isinstance(order, StartOrder):
                self._start(order, now_ms)
            else:
                self._stop(order, now_ms, stopped)
        if stopped:
            for node, updates in stopped.items():
                self._pool.apply(Report(node=node, updates=tuple(updates)), now_ms)
            self._pass(now_ms)

    def _start(self, order: StartOrder, now_ms: int) -> None:
        key = (order.job, order.task, order.index, order.number)
        ending = self._workload.ending(key)
        self._running[key] = _Running(order.node, now_ms, ending)
        heappush(self._ends, (now_ms + ending.length_ms, key))
        self.record.started(key, now_ms, ending.length_ms)

    def _stop(self, order: StopOrder, now_ms: int, stopped: dict[str, list[AttemptUpdate]]) -> None:
        key = attempt_key(order.attempt)
        running = self._running.pop(key, None)
        if running is not None:
            ending = Ending(now_ms - running.began_ms, None, order.reason)
            stopped.setdefault(running.node, []).append(
                _finished(key, running._replace(ending=ending), now_ms)
            )


def _with_queues(pool: Pool, workload: Workload, setup: Setup) -> Pool:
    for command in (*workload.queues, *setup.queues):
        pool.apply(command, 0)
    return pool


def _finished(key: AttemptKey, running: _Running, at_ms: int) -> AttemptUpdate:
    return AttemptUpdate(
        attempt=attempt_id(key),
        state="finished",
        reason=running.ending.reason,
        exit_code=running.ending.exit_code,
        started_at=running.began_ms,
        finished_at=at_ms,
    )
