"""What is measured while a workload is replayed.

Waits are those of elements, from when they may start (submitted, and what they need has succeeded) to
their first start. Amounts held are integrated exactly; what is costly to ask, the fairness of shares
and the fragmentation of GPUs, is sampled at times that are equally far apart.
"""

from __future__ import annotations

from typing import NamedTuple

from towline.core.commands import AttemptKey
from towline.core.entries import Job
from towline.core.pool import Pool
from towline.core.queues.amounts import NAMES
from towline.core.rows import Changes
from towline.model.states import ElementState
from towline.simulation.replay.samples import Sampler, Samples
from towline.simulation.replay.workload import Submission, Workload

SUCCEEDED = ElementState.SUCCEEDED.value


class Start(NamedTuple):
    """The first attempt of an element."""

    wait_ms: int
    run_ms: int


class Record:
    """``starts`` in the order of starting. ``integral``: of what was held, resource by resource of
    queues, times milliseconds, from ``began_ms`` to ``ended_ms``."""

    def __init__(self, pool: Pool, workload: Workload) -> None:
        self.capacity = list(pool.state.capacity)
        self.workload = workload
        self.starts: list[Start] = []
        self.integral = [0] * len(NAMES)
        self.began_ms = workload.submissions[0].at_ms if workload.submissions else 0
        self.ended_ms = self.began_ms
        self.unfinished: list[str] = []
        """Jobs that had not ended when nothing could happen any more."""
        self._pool = pool
        self._ready = _Ready(pool)
        self._sampler = Sampler(pool, workload, self.began_ms)

    @property
    def samples(self) -> Samples:
        return self._sampler.samples

    @property
    def length_ms(self) -> int:
        return max(self.ended_ms - self.began_ms, 1)

    def pass_time(self, now_ms: int) -> None:
        """Nothing has changed since the last call; something does now."""
        passed_ms = now_ms - max(self.ended_ms, self.began_ms)
        if passed_ms <= 0:
            return
        for queue in self._pool.state.queues.top:
            for at, held in enumerate(queue.held):
                self.integral[at] += held * passed_ms
        self._sampler.pass_time(now_ms)
        self.ended_ms = now_ms

    def submitted(self, one: Submission) -> None:
        self._sampler.owner_of[one.job] = one.owner

    def started(self, key: AttemptKey, now_ms: int, length_ms: int) -> None:
        if key[3] == 1:
            ready_ms = self._ready.since(self._pool.state.jobs[key[0]], key)
            self.starts.append(Start(now_ms - ready_ms, length_ms))

    def happened(self, changes: Changes, now_ms: int) -> None:
        """What a batch has changed."""
        self._ready.happened(changes, now_ms)
        self._sampler.forget(event.job for event in changes.events if event.kind == "job.ended" and event.job)

    def finish(self) -> None:
        self.unfinished = list(self._pool.state.jobs)


class _Ready:
    """Since when elements may start."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._tasks: dict[str, dict[str, int]] = {}
        """When the tasks of a job have succeeded, of jobs with more than one."""
        self._elements: dict[str, dict[tuple[str, int], int]] = {}

    def since(self, job: Job, key: AttemptKey) -> int:
        task = job.tasks[key[1]]
        ready_ms = job.row.submitted_at
        for need in task.spec.needs:
            if need.each:
                ready_ms = max(ready_ms, self._elements[job.row.id][need.task, key[2]])
            else:
                ready_ms = max(ready_ms, self._tasks[job.row.id][need.task])
        return ready_ms

    def happened(self, changes: Changes, now_ms: int) -> None:
        for event in changes.events:
            if event.job is None:
                continue
            if event.kind == "job.ended":
                self._tasks.pop(event.job, None)
                self._elements.pop(event.job, None)
            elif event.kind == "task.ended":
                if (job := self._pool.state.jobs.get(event.job)) is not None and len(job.tasks) > 1:
                    self._tasks.setdefault(event.job, {})[event.data["task"]] = now_ms
            elif event.kind == "attempt.finished" and event.data["element_state"] == SUCCEEDED:
                job = self._pool.state.jobs.get(event.job)
                if job is not None and len(job.tasks) > 1:
                    place = event.data["task"], event.data["index"]
                    self._elements.setdefault(event.job, {})[place] = now_ms
