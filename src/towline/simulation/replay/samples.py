"""Samples at equally distant times: utilisation over time, fairness of shares, fragmentation of GPUs.

How long a replay will last is not known before: it begins with a sample a second, and whenever there
are ``MOST`` of them, every other one is dropped and the distance doubled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from towline.core.entries import Task
from towline.core.placement.shape import WHOLE_MILLI
from towline.core.pool import Pool
from towline.core.queues.amounts import CPU, GPU, MEMORY, SCALE, dominant
from towline.core.queues.tree import Queue
from towline.core.queues.views import entitled
from towline.simulation.replay.workload import Workload
from towline.simulation.traces.policies import most_frequent

MOST = 2048
SHAPES = 8
"""So many of the most frequent shapes with GPUs stand for all of them."""


class Fairness(NamedTuple):
    """Between those who have something waiting. ``jain``: Jain's index of what each holds beside what is
    due to it (1: all alike, 1/n: one has all). ``deviation``: the largest difference between a dominant
    share and the one that is due, as a part of the pool."""

    jain: float
    deviation: float


class Sample(NamedTuple):
    """At one time. Parts of the pool's capacity that are held; ``fragmentation``: the part of the free
    GPUs that an element of the workload that asks for GPUs cannot use, on average. ``queues``, ``users``:
    None where less than two of them have something waiting."""

    at_ms: int
    cpu: float
    memory: float
    gpu: float
    queued: int
    fragmentation: float | None
    queues: Fairness | None
    users: Fairness | None


Samples = list[Sample]


class Sampler:
    def __init__(self, pool: Pool, workload: Workload, began_ms: int) -> None:
        self.samples: Samples = []
        self.owner_of: dict[str, str] = {}
        """Of unfinished jobs."""
        self._pool = pool
        self._step_ms = 1000
        self._next_ms = began_ms
        shapes = {shape: count for shape, count in workload.shapes().items() if shape.gpu is not None}
        self._shapes = list(most_frequent(shapes))[:SHAPES]
        self._many_owners = len({one.owner for one in workload.submissions}) > 1

    def pass_time(self, until_ms: int) -> None:
        """Nothing changes before then: samples up to it are alike."""
        if self._next_ms >= until_ms:
            return
        now = self._sample()
        while self._next_ms < until_ms:
            self.samples.append(now._replace(at_ms=self._next_ms))
            if len(self.samples) == MOST:
                del self.samples[1::2]
                self._step_ms *= 2
            self._next_ms = self.samples[-1].at_ms + self._step_ms

    def forget(self, jobs: Iterable[str]) -> None:
        for job in jobs:
            self.owner_of.pop(job, None)

    def _sample(self) -> Sample:
        state = self._pool.state
        held = [sum(queue.held[at] for queue in state.queues.top) for at in range(len(state.capacity))]
        parts = [_part(held[at], state.capacity[at]) for at in (CPU, MEMORY, GPU)]
        waiting: dict[Queue, None] = {}
        owners: dict[str, None] = {}
        queued = 0
        for task in self._waiting():
            queued += task.placeable
            waiting.setdefault(task.job.queue)
            owners.setdefault(self.owner_of[task.job.row.id])
        users = self._between_users(list(owners)) if self._many_owners and len(owners) > 1 else None
        queues = self._between_queues(list(waiting)) if len(waiting) > 1 else None
        cpu, memory, gpu = parts
        return Sample(0, cpu, memory, gpu, queued, self._fragmentation(), queues, users)

    def _waiting(self) -> Iterator[Task]:
        backlog, limits = self._pool.state.backlog, self._pool.state.limits
        for queues in backlog.shapes.values():
            for bucket in queues.values():
                yield from (task for task in bucket.tasks() if task.placeable)
        for limit in limits.keys.values():
            for bucket in limit.parked.values():
                yield from (task for task in bucket.tasks() if task.placeable)

    def _between_queues(self, queues: list[Queue]) -> Fairness | None:
        state = self._pool.state
        queues.sort(key=lambda queue: queue.name)
        busy = {level: None for queue in queues for level in queue.path}
        shares = [queue.share(state.capacity) / SCALE for queue in queues]
        return fairness(shares, [entitled(state.queues, queue, set(busy)) / SCALE for queue in queues])

    def _between_users(self, owners: list[str]) -> Fairness | None:
        state = self._pool.state
        held = {owner: [0] * len(state.capacity) for owner in sorted(owners)}
        for job in state.jobs.values():
            mine = held.get(self.owner_of[job.row.id])
            if mine is not None:
                for task in job.tasks:
                    if task.active:
                        for at, amount in enumerate(task.asks):
                            mine[at] += amount * task.active
        shares = [dominant(amounts, state.capacity)[0] / SCALE for amounts in held.values()]
        return fairness(shares, [1.0] * len(shares))

    def _fragmentation(self) -> float | None:
        columns = self._pool.state.columns
        free = self._free_milli()
        total = sum(free.values())
        if not self._shapes or not total:
            return None
        weight = sum(part for _, part in self._shapes)
        lost = 0.0
        for shape, part in self._shapes:
            fitting = columns.remembered(shape).fitting()
            usable = sum(free.get(int(column), 0) for column in fitting)
            lost += part / weight * (total - usable) / total
        return lost

    def _free_milli(self) -> dict[int, int]:
        """What is free of the devices of each node with some."""
        found: dict[int, int] = {}
        for column, ledger in self._pool.state.columns.ledgers.items():
            milli = sum(ledger.free_milli()) + WHOLE_MILLI * sum(ledger.free_slices().values())
            if milli:
                found[column] = milli
        return found


def fairness(shares: list[float], due: list[float]) -> Fairness | None:
    """Of what is held by those in question, to each its part by ``due``. None where nothing is held."""
    total = sum(shares)
    if not total or not all(due):
        return None
    fair = [total * part / sum(due) for part in due]
    beside = [share / part for share, part in zip(shares, fair, strict=True)]
    jain = sum(beside) ** 2 / (len(beside) * sum(each * each for each in beside))
    return Fairness(jain, max(abs(share - part) for share, part in zip(shares, fair, strict=True)))


def _part(held: int, capacity: int) -> float:
    return held / capacity if capacity else 0.0
