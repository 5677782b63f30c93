"""Rows for tests of stores: every field has a value, so that a test names only what it is about."""

from __future__ import annotations

from typing import Any, Self

from tests.builders import job_spec

from towline.core.rows import (
    AttemptRow,
    Changes,
    ElementRow,
    EventRow,
    JobRow,
    NodeRow,
    QueueRow,
    RangeRow,
    SpecRow,
    TaskRow,
)
from towline.store.port import Reservation, Store


def job(id: str, seq: int, **fields: Any) -> JobRow:
    values: dict[str, Any] = {
        "namespace": "default",
        "name": "flights",
        "state": "running",
        "reason": None,
        "message": None,
        "priority": 50,
        "cancel_requested": False,
        "submitted_at": 1_760_000_000_000,
        "ended_at": None,
    }
    return JobRow(id=id, seq=seq, **(values | fields))


def spec(job: str, base_dir: str | None = None) -> SpecRow:
    return SpecRow(job=job, spec=job_spec("flights"), base_dir=base_dir)


def task(job: str, task: int = 0, **fields: Any) -> TaskRow:
    values: dict[str, Any] = {"name": "main", "first": 0, "last": 0, "next": 0, "ready": True}
    counts = dict.fromkeys(("waiting", "active", "succeeded", "failed", "cancelled", "skipped"), 0)
    return TaskRow(job=job, task=task, **(values | counts | {"queued": 1} | fields))


def element(job: str, index: int, state: str = "active", task: int = 0, **fields: Any) -> ElementRow:
    values: dict[str, Any] = {
        "number": 1,
        "failures": 0,
        "losses": 0,
        "not_before": None,
        "reason": None,
        "message": None,
        "exit_code": None,
    }
    return ElementRow(job=job, task=task, index=index, state=state, **(values | fields))


def ended_range(job: str, lo: int, hi: int, task: int = 0, state: str = "skipped") -> RangeRow:
    return RangeRow(job=job, task=task, lo=lo, hi=hi, state=state, reason="need_failed", message=None)


def attempt(
    job: str, index: int, number: int = 1, state: str = "assigned", task: int = 0, **fields: Any
) -> AttemptRow:
    values: dict[str, Any] = {
        "node": "n1",
        "stop": None,
        "reason": None,
        "message": None,
        "exit_code": None,
        "signal": None,
        "assigned_at": 1_760_000_000_000,
        "started_at": None,
        "finished_at": None,
        "peak_memory_bytes": None,
        "cpu_ms": None,
        "image_digest": None,
    }
    return AttemptRow(job=job, task=task, index=index, number=number, state=state, **(values | fields))


def node(id: str = "n1", **fields: Any) -> NodeRow:
    values: dict[str, Any] = {
        "name": id,
        "instance": "i1",
        "state": "ready",
        "cpu_milli": 2_000,
        "memory_bytes": 2**34,
        "pids": 30_000,
        "labels": {"zone": "a"},
        "runtimes": {"process": None, "oci": "crun is not installed"},
    }
    return NodeRow(id=id, **(values | fields))


def queue(name: str, **fields: Any) -> QueueRow:
    values: dict[str, Any] = {"parent": None, "guaranteed": {"cpu": 2_000}, "maximum": {"gpu": 500}}
    return QueueRow(name=name, **(values | fields))


def event(number: int, job: str | None = None, kind: str = "job.submitted", **data: Any) -> EventRow:
    return EventRow(number=number, at=1_760_000_000_000 + number, kind=kind, job=job, data=data)


def reservation(key: str, digest: str = "d1", job: str = "j1", namespace: str = "default") -> Reservation:
    return Reservation(namespace=namespace, key=key, digest=digest, job=job, pool="default")


def changes(**lists: Any) -> Changes:
    """``event_no`` follows from the events where it is not given; ``job_seq`` is 0."""
    names = ("jobs", "specs", "tasks", "elements", "ranges", "attempts", "nodes", "events")
    values: dict[str, Any] = {name: [] for name in names} | {"job_seq": 0} | lists
    values.setdefault("event_no", max((row.number for row in values["events"]), default=0))
    return Changes(**values)


class Writing:
    """A leader that only commits: it counts its commits, and its counters only rise."""

    def __init__(self, store: Store, pool: str, term: int, commit_no: int) -> None:
        self.store, self.pool, self.term, self.commit_no = store, pool, term, commit_no
        self.event_no, self.job_seq = 0, 0

    @classmethod
    async def lead(cls, store: Store, pool: str) -> Self:
        term = await store.raise_term(pool)
        snapshot, _ = await store.load(pool, term)
        return cls(store, pool, term, snapshot.commit_no)

    async def commit(self, **lists: Any) -> None:
        made = changes(**lists)
        made.event_no = max(made.event_no, self.event_no)
        made.job_seq = max(made.job_seq, self.job_seq, *(row.seq for row in made.jobs), 0)
        await self.store.commit(self.pool, self.term, self.commit_no, made)
        self.commit_no += 1
        self.event_no, self.job_seq = made.event_no, made.job_seq

    async def submit(self, id: str, seq: int, **fields: Any) -> None:
        """A job of one task of one element."""
        row = job(id, seq, pool=self.pool, **fields)
        await self.commit(jobs=[row], specs=[spec(id)], tasks=[task(id)])
