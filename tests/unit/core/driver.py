"""Drives a pool as a leader does, with every invariant checked after every step.

What each batch commits is kept in a small table of rows, so that a test can load the pool again at
any point and find it the same.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from towline.core import invariants
from towline.core.commands import (
    AttemptUpdate,
    Cancel,
    Command,
    NodeUp,
    Order,
    Report,
    Retry,
    StartOrder,
    StopOrder,
    Submit,
    Tick,
    attempt_id,
)
from towline.core.lease import PROTECTION, Silence
from towline.core.pool import Pool
from towline.core.rows import Changes, EventRow, JobRecord, NodeRow, PoolSnapshot
from towline.model.job import Array, JobSpec, Need, Resources, Retries, TaskSpec

SMALL = Resources(cpu_milli=500, memory_bytes=2**20, pids=16)


def task(
    *needs: str | Need, size: int | None = None, retries: Retries | None = None, **more: Any
) -> TaskSpec:
    return TaskSpec(
        runtime="process",
        command=("true",),
        resources=more.pop("resources", SMALL),
        needs=tuple(Need(task=need) if isinstance(need, str) else need for need in needs),
        array=None if size is None else Array(first=0, last=size - 1),
        retries=retries or Retries(),
        **more,
    )


def each(name: str) -> Need:
    return Need(task=name, each=True)


def node_row(
    name: str = "n1", instance: str = "i1", cpu_milli: int = 2000, protects: tuple[str, ...] = (PROTECTION,)
) -> NodeRow:
    return NodeRow(
        id=name,
        name=name,
        instance=instance,
        state="ready",
        cpu_milli=cpu_milli,
        memory_bytes=2**33,
        pids=10_000,
        labels={},
        runtimes={"process": None, "oci": "crun is not installed"},
        protects={"process": protects},
    )


def empty() -> PoolSnapshot:
    return PoolSnapshot(pool="default", term=1, commit_no=0, event_no=0, job_seq=0)


class Table:
    """The committed rows, by key."""

    def __init__(self) -> None:
        self.jobs: dict[Any, Any] = {}
        self.specs: dict[Any, Any] = {}
        self.tasks: dict[Any, Any] = {}
        self.elements: dict[Any, Any] = {}
        self.ranges: dict[Any, Any] = {}
        self.attempts: dict[Any, Any] = {}
        self.nodes: dict[Any, Any] = {}
        self.queues: dict[Any, Any] = {}
        self.usages: dict[Any, Any] = {}
        self.durations: dict[Any, Any] = {}
        self.events: list[EventRow] = []
        self.event_no = self.job_seq = 0

    def commit(self, changes: Changes) -> None:
        self.event_no, self.job_seq = changes.event_no, changes.job_seq
        self.jobs |= {row.id: row for row in changes.jobs}
        self.specs |= {row.job: row for row in changes.specs}
        self.tasks |= {(row.job, row.task): row for row in changes.tasks}
        self.elements |= {(row.job, row.task, row.index): row for row in changes.elements}
        for key in changes.ranges_gone:
            del self.ranges[key]
        self.ranges |= {(row.job, row.task, row.lo): row for row in changes.ranges}
        self.attempts |= {(row.job, row.task, row.index, row.number): row for row in changes.attempts}
        self.nodes |= {row.id: row for row in changes.nodes}
        self.queues |= {row.name: row for row in changes.queues}
        for name in changes.queues_gone:
            del self.queues[name]
        self.usages |= {row.namespace: row for row in changes.usages}
        self.durations |= {(row.namespace, row.name, row.task): row for row in changes.durations}
        self.events += changes.events
        assert [event.number for event in self.events] == list(range(1, self.event_no + 1))

    def record(self, job: str) -> JobRecord:
        mine = sorted(
            (deepcopy(row) for row in self.elements.values() if row.job == job),
            key=lambda row: (row.task, row.index),
        )
        ended = [row for row in mine if row.state not in ("active", "queued")]
        return JobRecord(
            term=1,
            event_no=self.event_no,
            job=deepcopy(self.jobs[job]),
            spec=self.specs[job],
            tasks=[row for key, row in sorted(self.tasks.items()) if row.job == job],
            ended=[(row.job, row.task, row.state, row.index, row.index) for row in ended],
            ranges=[row for key, row in sorted(self.ranges.items()) if row.job == job],
            elements=[row for row in ended if row.state in ("failed", "cancelled")],
        )

    def snapshot(self) -> PoolSnapshot:
        unfinished = {row.id for row in self.jobs.values() if row.state in ("running", "quarantined")}
        live = ("active", "queued")
        mine = [row for row in self.elements.values() if row.job in unfinished]
        return PoolSnapshot(
            pool="default",
            term=1,
            commit_no=0,
            event_no=self.event_no,
            job_seq=self.job_seq,
            jobs=[deepcopy(row) for row in self.jobs.values() if row.id in unfinished],
            specs=[row for row in self.specs.values() if row.job in unfinished],
            tasks=[row for row in self.tasks.values() if row.job in unfinished],
            elements=[deepcopy(row) for row in mine if row.state in live],
            ended=[
                (row.job, row.task, row.state, row.index, row.index) for row in mine if row.state not in live
            ],
            ranges=[row for row in self.ranges.values() if row.job in unfinished],
            attempts=[deepcopy(row) for row in self.attempts.values() if row.job in unfinished],
            nodes=[deepcopy(row) for row in self.nodes.values()],
            queues=[deepcopy(row) for row in self.queues.values()],
            usages=[deepcopy(row) for row in self.usages.values()],
            durations=[deepcopy(row) for row in self.durations.values()],
        )


class Driver:
    """A pool, its table, its clock, and the orders that nobody has carried out yet."""

    def __init__(self, *nodes: NodeRow, silence: Silence | None = None) -> None:
        self.now_ms = 1_000_000
        self.silence = silence
        self.pool = Pool.load(empty(), self.now_ms, silence=silence)
        self.table = Table()
        self.orders: list[Order] = []
        self.instances: dict[str, NodeRow] = {}
        for row in nodes or (node_row(),):
            self.join(row)

    def step(self, *commands: Command, after_ms: int = 1) -> tuple[str, ...]:
        """One batch: commands, the pass, the commit. Returns the last command's answer."""
        self.now_ms += after_ms
        answer: tuple[str, ...] = ()
        for command in commands:
            answer = self.pool.apply(command, self.now_ms)
        self.pool.schedule(self.now_ms)
        changes, orders = self.pool.collect()
        self.table.commit(deepcopy(changes))
        self.orders += orders
        invariants.check(self.pool.state)
        return answer

    def reload(self) -> None:
        """A new leader: the pool as the table has it; nodes say Hello again by ``join``."""
        before = self.task_rows()
        self.pool = Pool.load(self.table.snapshot(), self.now_ms, silence=self.silence)
        invariants.check(self.pool.state)
        assert self.task_rows() == before

    def task_rows(self) -> list[Any]:
        # In a quarantined job nothing is set off, so what could be ready is known after a load only.
        jobs = [job for job in self.pool.state.jobs.values() if not job.quarantined]
        # A job that runs again stands behind those that came meanwhile, until the next load.
        return sorted((task.row() for job in jobs for task in job.tasks), key=lambda row: (row.job, row.task))

    def join(self, row: NodeRow, *known: AttemptUpdate) -> tuple[str, ...]:
        self.instances[row.id] = row
        return self.step(NodeUp(node=deepcopy(row), known=known))

    def submit(
        self,
        job: str = "j1",
        priority: int = 50,
        queue: str = "default",
        namespace: str = "default",
        **tasks: TaskSpec,
    ) -> None:
        spec = JobSpec(name=f"name-of-{job}", tasks=tasks, priority=priority, queue=queue)
        self.step(Submit(job=job, namespace=namespace, spec=spec))

    def cancel(
        self, job: str = "j1", task: str | None = None, index: int | None = None, kill: bool = False
    ) -> None:
        self.step(Cancel(job=job, task=task, index=index, kill=kill))

    def retry(self, job: str = "j1", *named: tuple[str, int | None], failed: bool = False) -> tuple[str, ...]:
        """Run again what is named, all of the job where nothing is; ``failed``: only what has failed."""
        record = self.table.record(job)
        return self.step(Retry(job=job, record=record, named=named, failed_only=failed))

    def tick(self, after_ms: int) -> None:
        self.step(Tick(), after_ms=after_ms)

    def starts(self) -> list[str]:
        """The attempts ordered to start since the last call."""
        started = [order for order in self.orders if isinstance(order, StartOrder)]
        self.orders = [order for order in self.orders if not isinstance(order, StartOrder)]
        return [attempt_id((order.job, order.task, order.index, order.number)) for order in started]

    def stops(self) -> list[StopOrder]:
        stops = [order for order in self.orders if isinstance(order, StopOrder)]
        self.orders = [order for order in self.orders if not isinstance(order, StopOrder)]
        return stops

    def report(
        self, attempt: str, state: str = "finished", node: str = "n1", **fields: Any
    ) -> tuple[str, ...]:
        return self.step(Report(node=node, updates=(AttemptUpdate(attempt=attempt, state=state, **fields),)))

    def exit(self, attempt: str, code: int = 0, node: str = "n1") -> tuple[str, ...]:
        return self.report(attempt, node=node, reason="exited", exit_code=code)

    def exit_all(self, code: int = 0) -> int:
        """Let everything that was ordered end, until nothing is ordered any more; returns how many."""
        count = 0
        while started := self.starts():
            count += len(started)
            for attempt in started:
                self.exit(attempt, code)
        return count

    def job_row(self, job: str = "j1") -> Any:
        return self.table.jobs[job]

    def task_row(self, task: int = 0, job: str = "j1") -> Any:
        return self.table.tasks[(job, task)]

    def element(self, index: int = 0, task: int = 0, job: str = "j1") -> Any:
        return self.table.elements[(job, task, index)]

    def kinds(self) -> list[str]:
        return [event.kind for event in self.table.events]
