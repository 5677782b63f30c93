"""What a new leader loads: the unfinished part of a pool, streamed so that history costs no memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from sys import intern
from typing import Any, TypeVar

from msgspec import Struct

from towline.core.rows import AttemptRow, PoolSnapshot
from towline.errors import StaleTerm
from towline.store import codec, statements
from towline.store.codec import Damaged, Layout
from towline.store.sqlite import reads
from towline.store.sqlite.texts import text

R = TypeVar("R", bound=Struct)
EndedRange = tuple[str, int, str, int, int]


def load(connection: sqlite3.Connection, pool: str, term: int) -> tuple[PoolSnapshot, dict[str, str]]:
    """The snapshot, and the jobs left out of it with what is wrong. Raises StaleTerm."""
    led_term, commit_no, event_no, job_seq = reads.counters(connection, pool)
    if led_term != term:
        raise StaleTerm(f"pool {pool} is led in term {led_term}, not {term}: another leader took over")
    part = _Part(connection, pool)
    jobs = part.rows(codec.JOB, statements.unfinished_jobs, job_at=0)
    snapshot = PoolSnapshot(
        pool=pool,
        term=term,
        commit_no=commit_no,
        event_no=event_no,
        job_seq=job_seq,
        jobs=jobs,
        specs=part.below(codec.SPEC),
        tasks=part.below(codec.TASK),
        elements=part.rows(codec.ELEMENT, statements.placed_elements),
        ended=part.ended(),
        ranges=part.below(codec.RANGE),
        attempts=part.attempts(),
        nodes=reads.nodes(connection, pool),
        queues=part.own(codec.QUEUE),
        usages=part.own(codec.USAGE),
        durations=part.own(codec.DURATION),
    )
    part.find_incomplete(snapshot)
    return _without(snapshot, part.damaged), part.damaged


class _Part:
    """Reads the rows below a pool's unfinished jobs, and remembers the jobs that cannot be read."""

    def __init__(self, connection: sqlite3.Connection, pool: str) -> None:
        self._connection = connection
        self._pool = {"pool": pool}
        self.damaged: dict[str, str] = {}

    def rows(self, layout: Layout[R], make: Callable[..., Any], *args: Any, job_at: int = 0) -> list[R]:
        """``job_at`` is the place of the job's id among the cells."""
        found: list[R] = []
        for cells in self._connection.execute(text(make, *args), self._pool):
            try:
                found.append(layout.decode(cells))
            except Damaged as damage:
                self.damaged.setdefault(str(cells[job_at]), str(damage))
        return found

    def below(self, layout: Layout[R]) -> list[R]:
        return self.rows(layout, statements.unfinished, layout)

    def own(self, layout: Layout[R]) -> list[R]:
        """What belongs to the pool itself. Raises Damaged."""
        cells = self._connection.execute(text(statements.of_pool, layout), self._pool)
        return [layout.decode(row) for row in cells]

    def attempts(self) -> list[AttemptRow]:
        rows = self.rows(codec.ATTEMPT, statements.live_attempts)
        rows += self.rows(codec.ATTEMPT, statements.attempts_of_queued)
        by_key = {(row.job, row.task, row.index, row.number): row for row in rows}
        return [by_key[key] for key in sorted(by_key)]

    def ended(self) -> list[EndedRange]:
        return joined(self._connection.execute(text(statements.ended_elements), self._pool))

    def find_incomplete(self, snapshot: PoolSnapshot) -> None:
        """A job without its spec, or with another number of tasks than that has, is damaged too."""
        tasks: dict[str, int] = {}
        for row in snapshot.tasks:
            tasks[row.job] = tasks.get(row.job, 0) + 1
        expected = {row.job: len(row.spec.tasks) for row in snapshot.specs}
        for row in snapshot.jobs:
            if row.id not in expected:
                self.damaged.setdefault(row.id, "its row of table spec is missing")
            elif expected[row.id] != tasks.get(row.id, 0):
                self.damaged.setdefault(
                    row.id, f"its spec has {expected[row.id]} tasks, table task {tasks.get(row.id, 0)}"
                )


def joined(cells: Iterable[tuple[str, int, int, str]]) -> list[EndedRange]:
    """Neighbours with one state joined to ranges while they stream by, in order of the key."""
    found: list[EndedRange] = []
    job, task, state, lo, hi = "", -1, "", 0, -1
    for next_job, next_task, index, next_state in cells:
        if index == hi + 1 and next_state == state and next_task == task and next_job == job:
            hi = index
            continue
        if task >= 0:
            found.append((job, task, state, lo, hi))
        # One string for all ranges of a job: there may be a hundred thousand.
        job = job if next_job == job else next_job
        task, state, lo, hi = next_task, intern(next_state), index, index
    if task >= 0:
        found.append((job, task, state, lo, hi))
    return found


def _without(snapshot: PoolSnapshot, damaged: dict[str, str]) -> PoolSnapshot:
    if damaged:
        snapshot.jobs = [row for row in snapshot.jobs if row.id not in damaged]
        snapshot.ended = [row for row in snapshot.ended if row[0] not in damaged]
        for name in ("specs", "tasks", "elements", "ranges", "attempts"):
            kept = [row for row in getattr(snapshot, name) if row.job not in damaged]
            setattr(snapshot, name, kept)
    return snapshot
