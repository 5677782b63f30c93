"""The store in memory: for simulations and tests of what stands above a store. Nothing is durable."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from typing import Any, TypeVar

from msgspec import Struct

from towline.core.pool.draining import FORGOTTEN
from towline.core.rows import (
    AttemptRow,
    Changes,
    DurationRow,
    ElementRow,
    EventRow,
    JobRecord,
    JobRow,
    NodeRow,
    PoolSnapshot,
    QueueRow,
    RangeRow,
    SpecRow,
    TaskRow,
    UsageRow,
)
from towline.errors import StaleTerm, StoreError
from towline.model.states import ENDED, AttemptState, ElementState
from towline.store.coordination.memory import MemoryCoordination
from towline.store.delivery.memory import MemoryDeliveries
from towline.store.memory_access import MemoryAccess
from towline.store.port import ElementPage, Reservation, Sealed

R = TypeVar("R", bound=Struct)

_MOST_OF_A_PREFIX = 10
UNSUCCESSFUL = (ElementState.FAILED, ElementState.CANCELLED)
_DEAD = (AttemptState.FINISHED, AttemptState.LOST)


class _Counters(Struct):
    term: int = 0
    commit_no: int = 0
    event_no: int = 0
    job_seq: int = 0


class _JobData(Struct):
    """A job with everything below it."""

    row: JobRow
    spec: SpecRow | None = None
    tasks: dict[int, TaskRow] = {}
    elements: dict[tuple[int, int], ElementRow] = {}
    ranges: dict[tuple[int, int], RangeRow] = {}
    attempts: dict[tuple[int, int, int], AttemptRow] = {}

    def newest_attempt(self, element: ElementRow) -> AttemptRow | None:
        return self.attempts.get((element.task, element.index, element.number))


class _PoolData(Struct):
    """What belongs to the pool itself."""

    queues: dict[str, QueueRow] = {}
    usages: dict[str, UsageRow] = {}
    durations: dict[tuple[str, str, str], DurationRow] = {}

    def put(self, changes: Changes) -> None:
        self.queues.update((row.name, row) for row in _copies(changes.queues))
        self.usages.update((row.namespace, row) for row in _copies(changes.usages))
        self.durations.update(
            ((row.namespace, row.name, row.task), row) for row in _copies(changes.durations)
        )
        for name in changes.queues_gone:
            self.queues.pop(name, None)


def _copies(rows: Iterable[R]) -> list[R]:
    """Rows are copied on the way in and out: their owners go on changing them."""
    return [copy(row) for row in rows]


class MemoryStore(MemoryAccess, MemoryCoordination, MemoryDeliveries):
    """A ``Store`` (see the port) that forgets everything with its process."""

    def __init__(self) -> None:
        MemoryAccess.__init__(self)
        MemoryCoordination.__init__(self)
        MemoryDeliveries.__init__(self)
        self._pools: dict[str, _Counters] = {}
        self._jobs: dict[str, _JobData] = {}
        self._nodes: dict[str, dict[str, NodeRow]] = {}
        self._own: dict[str, _PoolData] = {}
        self._events: dict[str, dict[int, EventRow]] = {}
        self._keys: dict[tuple[str, str], tuple[Reservation, int]] = {}
        self._sealed: dict[tuple[str, str, str], Sealed] = {}

    async def open(self) -> None:
        return

    async def close(self) -> None:
        return

    # --- the leader -------------------------------------------------------------------------------
    async def raise_term(self, pool: str) -> int:
        counters = self._pools.setdefault(pool, _Counters())
        counters.term += 1
        return counters.term

    async def pool_create(self, pool: str) -> bool:
        if pool in self._pools:
            return False
        self._pools[pool] = _Counters()
        return True

    def _counters(self) -> dict[str, tuple[int, int]]:
        return {pool: (counters.term, counters.event_no) for pool, counters in self._pools.items()}

    async def load(self, pool: str, term: int) -> tuple[PoolSnapshot, dict[str, str]]:
        counters = self._pools.get(pool, _Counters())
        if counters.term != term:
            raise StaleTerm(
                f"pool {pool} is led in term {counters.term}, not {term}: another leader took over"
            )
        mine = [data for _, data in sorted(self._jobs.items()) if data.row.pool == pool]
        unfinished = [data for data in mine if data.row.ended_at is None]
        damaged = {data.row.id: wrong for data in unfinished if (wrong := _incomplete(data))}
        whole = [data for data in unfinished if data.row.id not in damaged]
        own = self._own.get(pool, _PoolData())
        snapshot = PoolSnapshot(
            pool=pool,
            term=term,
            commit_no=counters.commit_no,
            event_no=counters.event_no,
            job_seq=counters.job_seq,
            jobs=sorted(_copies(data.row for data in whole), key=lambda row: row.seq),
            specs=[copy(data.spec) for data in whole if data.spec is not None],
            tasks=_copies(row for data in whole for row in _in_order(data.tasks)),
            elements=_copies(
                row for data in whole for row in _in_order(data.elements) if row.state not in ENDED
            ),
            ended=[ended for data in whole for ended in _ended(data)],
            ranges=_copies(row for data in whole for row in _in_order(data.ranges)),
            attempts=_copies(row for data in whole for row in _attempts_to_load(data)),
            nodes=await self.nodes(pool),
            queues=_copies(_in_order(own.queues)),
            usages=_copies(_in_order(own.usages)),
            durations=_copies(_in_order(own.durations)),
        )
        return snapshot, damaged

    async def commit(self, pool: str, term: int, commit_no: int, changes: Changes) -> None:
        counters = self._pools.get(pool, _Counters())
        if (counters.term, counters.commit_no) != (term, commit_no):
            raise StaleTerm(
                f"commit {commit_no + 1} of pool {pool} in term {term} came too late: another leader leads it"
            )
        events = self._events.setdefault(pool, {})
        numbers = [event.number for event in changes.events]
        if len(set(numbers)) < len(numbers) or any(number in events for number in numbers):
            raise StoreError(f"an event of pool {pool} is there already")
        self._check_jobs(changes)
        counters.commit_no += 1
        counters.event_no, counters.job_seq = changes.event_no, changes.job_seq
        self._put(pool, changes)
        events.update((event.number, copy(event)) for event in changes.events)

    def _check_jobs(self, changes: Changes) -> None:
        """Rows belong to a job that is there, or comes with them."""
        new = {row.id for row in changes.jobs}
        below = (changes.specs, changes.tasks, changes.elements, changes.ranges, changes.attempts)
        for row in (row for rows in below for row in rows):
            if row.job not in new and row.job not in self._jobs:
                raise AssertionError(f"{row} belongs to no job")

    def _put(self, pool: str, changes: Changes) -> None:
        for row in _copies(changes.jobs):
            self._jobs.setdefault(row.id, _JobData(row)).row = row
        for row in _copies(changes.specs):
            self._jobs[row.job].spec = row
        for row in _copies(changes.tasks):
            self._jobs[row.job].tasks[row.task] = row
        for row in _copies(changes.elements):
            self._jobs[row.job].elements[row.task, row.index] = row
        for job, task, lo in changes.ranges_gone:
            self._jobs[job].ranges.pop((task, lo), None)
        for row in _copies(changes.ranges):
            self._jobs[row.job].ranges[row.task, row.lo] = row
        for row in _copies(changes.attempts):
            self._jobs[row.job].attempts[row.task, row.index, row.number] = row
        for row in _copies(changes.nodes):
            self._put_node(pool, row)
        self._own.setdefault(pool, _PoolData()).put(changes)
        for row in changes.keys:
            one = Reservation(namespace=row.namespace, key=row.key, digest=row.digest, job=row.job, pool=pool)
            self._keys.setdefault((row.namespace, row.key), (one, row.created_at))

    def _put_node(self, pool: str, row: NodeRow) -> None:
        """Of two pools, the one in which a node is not forgotten has its row."""
        for other, rows in self._nodes.items():
            if other != pool and row.id in rows:
                if rows[row.id].state != FORGOTTEN:
                    return
                del rows[row.id]
        self._nodes.setdefault(pool, {})[row.id] = row

    async def expired(self, pool: str, before_ms: int, limit: int) -> list[str]:
        old = [
            (data.row.ended_at, job)
            for job, data in self._jobs.items()
            if data.row.pool == pool and data.row.ended_at is not None and data.row.ended_at < before_ms
        ]
        return [job for _, job in sorted(old)[:limit]]

    async def expire(self, pool: str, before_ms: int, limit: int) -> int:
        old = await self.expired(pool, before_ms, limit)
        for job in old:
            del self._jobs[job]
        events = self._events.get(pool, {})
        for number in sorted(events):
            if events[number].at >= before_ms:
                break
            del events[number]
        for key, (one, created_at) in list(self._keys.items()):
            if one.pool == pool and created_at < before_ms and one.job not in self._jobs:
                del self._keys[key]
        return len(old)

    # --- idempotency keys -------------------------------------------------------------------------
    async def reserve(self, wanted: Sequence[Reservation]) -> list[Reservation]:
        now_ms = time.time_ns() // 1_000_000
        stands = [self._keys.setdefault((one.namespace, one.key), (one, now_ms)) for one in wanted]
        return [one for one, _ in stands]

    async def reserved(self, namespace: str, key: str) -> Reservation | None:
        held = self._keys.get((namespace, key))
        return None if held is None else held[0]

    async def release(self, namespace: str, key: str) -> None:
        self._keys.pop((namespace, key), None)

    async def answer(self, namespace: str, key: str, error: str) -> None:
        if (namespace, key) in self._keys:
            one, created_at = self._keys[namespace, key]
            kept = Reservation(
                namespace=namespace, key=key, digest=one.digest, job=one.job, pool=one.pool, error=error
            )
            self._keys[namespace, key] = (kept, created_at)

    # --- what is kept encrypted -------------------------------------------------------------------
    async def seal_put(
        self, namespace: str, kind: str, name: str, data: bytes, user: str | None, at_ms: int
    ) -> int:
        key = (namespace, kind, name)
        version = self._sealed[key].version + 1 if key in self._sealed else 1
        self._changes += 1
        self._sealed[key] = Sealed(
            namespace=namespace, kind=kind, name=name, data=data, user=user, version=version, updated_at=at_ms
        )
        return version

    async def seal_add(
        self, namespace: str, kind: str, name: str, data: bytes, user: str | None, at_ms: int
    ) -> bool:
        if (namespace, kind, name) in self._sealed:
            return False
        await self.seal_put(namespace, kind, name, data, user, at_ms)
        return True

    async def seal_get(self, namespace: str, kind: str, name: str) -> Sealed | None:
        return self._sealed.get((namespace, kind, name))

    async def seal_list(self, namespace: str | None = None, kind: str | None = None) -> list[Sealed]:
        rows = _in_order(self._sealed)
        return [row for row in rows if namespace in (None, row.namespace) and kind in (None, row.kind)]

    async def seal_delete(self, namespace: str, kind: str, name: str) -> bool:
        return self._counted(self._sealed.pop((namespace, kind, name), None) is not None)

    # --- facts ------------------------------------------------------------------------------------
    async def find_jobs(self, namespace: str, argument: str) -> list[JobRow]:
        visible = await self.jobs(namespace, None, len(self._jobs))
        for found in (
            [row for row in visible if row.id == argument],
            [row for row in visible if row.name == argument][:1],
        ):
            if found:
                return found
        return [row for row in visible if argument and row.id.startswith(argument)][:_MOST_OF_A_PREFIX]

    async def jobs(
        self, namespace: str, before: tuple[int, str] | None, limit: int, states: Sequence[str] = ()
    ) -> list[JobRow]:
        rows = [data.row for data in self._jobs.values() if data.row.namespace == namespace]
        if before is not None:
            rows = [row for row in rows if (row.seq, row.id) < before]
        if states:
            rows = [row for row in rows if row.state in states]
        return _copies(sorted(rows, key=lambda row: (row.seq, row.id), reverse=True)[:limit])

    async def job(self, job: str) -> tuple[JobRow, SpecRow] | None:
        data = self._jobs.get(job)
        return None if data is None or data.spec is None else (copy(data.row), copy(data.spec))

    async def record(self, pool: str, job: str, namespace: str, key: str | None) -> JobRecord | None:
        data, counters = self._jobs.get(job), self._pools.get(pool, _Counters())
        if data is None or data.spec is None:
            return None
        elements = (row for row in _in_order(data.elements) if row.state in UNSUCCESSFUL)
        held = None if key is None else self._keys.get((namespace, key))
        return JobRecord(
            term=counters.term,
            event_no=counters.event_no,
            job=copy(data.row),
            spec=copy(data.spec),
            tasks=_copies(_in_order(data.tasks)),
            ended=_ended(data),
            ranges=_copies(_in_order(data.ranges)),
            elements=_copies(elements),
            taken=None if held is None else held[0].digest,
        )

    async def tasks(self, job: str) -> list[TaskRow]:
        data = self._jobs.get(job)
        return [] if data is None else _copies(_in_order(data.tasks))

    async def elements(self, job: str, task: int, after: int, through: int) -> ElementPage:
        page = ElementPage(elements=[], ranges=[], attempts=[])
        data = self._jobs.get(job)
        if data is None:
            return page

        def inside(row: ElementRow | AttemptRow) -> bool:
            return row.task == task and after < row.index <= through

        page.elements = _copies(row for row in _in_order(data.elements) if inside(row))
        page.attempts = _copies(row for row in _in_order(data.attempts) if inside(row))
        ranges = (row for row in _in_order(data.ranges) if row.task == task)
        page.ranges = _copies(row for row in ranges if row.hi > after and row.lo <= through)
        return page

    async def first_failure(self, job: str) -> ElementRow | None:
        data = self._jobs.get(job)
        if data is None:
            return None

        def ended(element: ElementRow) -> tuple[bool, int, int, int]:
            attempt = data.newest_attempt(element)
            finished_at = None if attempt is None else attempt.finished_at
            return finished_at is None, finished_at or 0, element.task, element.index

        failed = [row for row in data.elements.values() if row.state == ElementState.FAILED]
        return copy(min(failed, key=ended)) if failed else None

    async def attempt(self, job: str, task: int, index: int, number: int) -> AttemptRow | None:
        data = self._jobs.get(job)
        found = None if data is None else data.attempts.get((task, index, number))
        return None if found is None else copy(found)

    async def nodes(self, pool: str) -> list[NodeRow]:
        return _copies(_in_order(self._nodes.get(pool, {})))

    async def find_nodes(self, name: str) -> list[tuple[str, str]]:
        there = [(row, pool) for pool, rows in self._nodes.items() for row in rows.values()]
        there = [(row, pool) for row, pool in there if row.state != FORGOTTEN]
        found = [(row.id, pool) for row, pool in there if row.id == name]
        return sorted(found or [(row.id, pool) for row, pool in there if row.name == name])

    async def events(self, stream: str, after: int, limit: int, job: str | None = None) -> list[EventRow]:
        events = self._events.get(stream, {})
        numbers = sorted(
            number for number, row in events.items() if number > after and (job is None or row.job == job)
        )
        return _copies(events[number] for number in numbers[:limit])

    async def counters(self, pool: str) -> tuple[int, int]:
        counters = self._pools.get(pool, _Counters())
        return counters.term, counters.event_no


def _in_order(rows: dict[Any, R]) -> Iterator[R]:
    return (rows[key] for key in sorted(rows))


def _incomplete(data: _JobData) -> str | None:
    if data.spec is None:
        return "its row of table spec is missing"
    expected, found = len(data.spec.spec.tasks), len(data.tasks)
    return None if expected == found else f"its spec has {expected} tasks, table task {found}"


def _ended(data: _JobData) -> list[tuple[str, int, str, int, int]]:
    ranges: list[tuple[str, int, str, int, int]] = []
    for row in _in_order(data.elements):
        if row.state not in ENDED:
            continue
        if ranges:
            job, task, state, lo, hi = ranges[-1]
            if (task, state, hi + 1) == (row.task, row.state, row.index):
                ranges[-1] = (job, task, state, lo, row.index)
                continue
        ranges.append((row.job, row.task, row.state, row.index, row.index))
    return ranges


def _attempts_to_load(data: _JobData) -> Iterator[AttemptRow]:
    for row in _in_order(data.attempts):
        element = data.elements.get((row.task, row.index))
        queued_after = element is not None and element.state == ElementState.QUEUED and element.number
        if row.state not in _DEAD or queued_after == row.number:
            yield row
