"""What a new leader loads: the unfinished part of a pool, streamed so that history costs no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from sys import intern
from typing import Any, TypeVar

from msgspec import Struct

from towline.core.rows import AttemptRow, PoolSnapshot
from towline.errors import StaleTerm
from towline.store import codec, statements
from towline.store.codec import Damaged, Layout
from towline.store.sql import facts
from towline.store.sql.plans import Ask, Cells, Plan

R = TypeVar("R", bound=Struct)
EndedRange = tuple[str, int, str, int, int]


def load(pool: str, term: int) -> Plan[tuple[PoolSnapshot, dict[str, str]]]:
    """The snapshot, and the jobs left out of it with what is wrong. Raises StaleTerm."""
    led_term, commit_no, event_no, job_seq = yield from facts.counters(pool)
    if led_term != term:
        raise StaleTerm(f"pool {pool} is led in term {led_term}, not {term}: another leader took over")
    part = _Part(pool)
    snapshot = PoolSnapshot(
        pool=pool,
        term=term,
        commit_no=commit_no,
        event_no=event_no,
        job_seq=job_seq,
        jobs=(yield from part.rows(codec.JOB, statements.unfinished_jobs)),
        specs=(yield from part.below(codec.SPEC)),
        tasks=(yield from part.below(codec.TASK)),
        elements=(yield from part.rows(codec.ELEMENT, statements.placed_elements)),
        ended=(yield from part.ended()),
        ranges=(yield from part.below(codec.RANGE)),
        attempts=(yield from part.attempts()),
        nodes=(yield from facts.nodes(pool)),
        queues=(yield from part.own(codec.QUEUE)),
        usages=(yield from part.own(codec.USAGE)),
        durations=(yield from part.own(codec.DURATION)),
    )
    part.find_incomplete(snapshot)
    return _without(snapshot, part.damaged), part.damaged


class _Part:
    """Reads the rows below a pool's unfinished jobs, and remembers the jobs that cannot be read."""

    def __init__(self, pool: str) -> None:
        self._pool = {"pool": pool}
        self.damaged: dict[str, str] = {}

    def rows(self, layout: Layout[R], make: Callable[..., Any], *args: Any) -> Plan[list[R]]:
        """Of statements whose first cell is the job's id."""
        found: list[R] = []
        for cells in (yield Ask(make, self._pool, args)):
            try:
                found.append(layout.decode(cells))
            except Damaged as damage:
                self.damaged.setdefault(str(cells[0]), str(damage))
        return found

    def below(self, layout: Layout[R]) -> Plan[list[R]]:
        return (yield from self.rows(layout, statements.unfinished, layout))

    def own(self, layout: Layout[R]) -> Plan[list[R]]:
        """What belongs to the pool itself. Raises Damaged."""
        return [layout.decode(cells) for cells in (yield Ask(statements.of_pool, self._pool, (layout,)))]

    def attempts(self) -> Plan[list[AttemptRow]]:
        found = yield from self.rows(codec.ATTEMPT, statements.live_attempts)
        found += yield from self.rows(codec.ATTEMPT, statements.attempts_of_queued)
        by_key = {(row.job, row.task, row.index, row.number): row for row in found}
        return [by_key[key] for key in sorted(by_key)]

    def ended(self) -> Plan[list[EndedRange]]:
        joined = Joined()
        yield Ask(statements.ended_elements, self._pool, stream=joined.add)
        return joined.close()

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


class Joined:
    """Elements with one state that are neighbours, joined to ranges while they stream by, in order of
    their key: (job, task, index, state)."""

    def __init__(self) -> None:
        self._found: list[EndedRange] = []
        self._open: EndedRange = ("", -1, "", 0, -1)

    def add(self, many: Iterable[Cells]) -> None:
        """The next ones: all of them, or a part that others follow."""
        job, task, state, lo, hi = self._open
        for next_job, next_task, index, next_state in many:
            if index == hi + 1 and next_state == state and next_task == task and next_job == job:
                hi = index
                continue
            if task >= 0:
                self._found.append((job, task, state, lo, hi))
            # One string for all ranges of a job: there may be a hundred thousand.
            job = job if next_job == job else next_job
            task, state, lo, hi = next_task, intern(next_state), index, index
        self._open = (job, task, state, lo, hi)

    def close(self) -> list[EndedRange]:
        """All of them; nothing may be added after it."""
        if self._open[1] >= 0:
            self._found.append(self._open)
        return self._found


def _without(snapshot: PoolSnapshot, damaged: dict[str, str]) -> PoolSnapshot:
    if damaged:
        snapshot.set_aside = [row for row in snapshot.jobs if row.id in damaged]
        snapshot.jobs = [row for row in snapshot.jobs if row.id not in damaged]
        snapshot.ended = [row for row in snapshot.ended if row[0] not in damaged]
        for name in ("specs", "tasks", "elements", "ranges", "attempts"):
            kept = [row for row in getattr(snapshot, name) if row.job not in damaged]
            setattr(snapshot, name, kept)
    return snapshot
