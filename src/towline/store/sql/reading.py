"""The facts, the leader's loading and what is kept encrypted: the reads of the store's port, in plans."""

from __future__ import annotations

from collections.abc import Sequence

from towline.core.rows import (
    AttemptRow,
    ElementRow,
    EventRow,
    JobRecord,
    JobRow,
    NodeRow,
    SpecRow,
    TaskRow,
)
from towline.store import statements
from towline.store.port import ElementPage, Reservation, Sealed
from towline.store.sql import facts
from towline.store.sql.plans import Running
from towline.store.sql.record import record


class SqlFacts(Running):
    """Mixed into a store."""

    # --- facts ------------------------------------------------------------------------------------
    async def find_jobs(self, namespace: str, argument: str) -> list[JobRow]:
        return await self._read(facts.find_jobs(namespace, argument))

    async def jobs(
        self, namespace: str, before: tuple[int, str] | None, limit: int, states: Sequence[str] = ()
    ) -> list[JobRow]:
        return await self._read(facts.jobs(namespace, before, limit, tuple(states)))

    async def job(self, job: str) -> tuple[JobRow, SpecRow] | None:
        return await self._read(facts.job(job))

    async def record(self, pool: str, job: str, namespace: str, key: str | None) -> JobRecord | None:
        return await self._read(record(pool, job, namespace, key))

    async def tasks(self, job: str) -> list[TaskRow]:
        return await self._read(facts.tasks(job), single=True)

    async def elements(self, job: str, task: int, after: int, through: int) -> ElementPage:
        return await self._read(facts.elements(job, task, after, through))

    async def first_failure(self, job: str) -> ElementRow | None:
        return await self._read(facts.first_failure(job), single=True)

    async def attempt(self, job: str, task: int, index: int, number: int) -> AttemptRow | None:
        return await self._read(facts.attempt(job, task, index, number), single=True)

    async def nodes(self, pool: str) -> list[NodeRow]:
        return await self._read(facts.nodes(pool), single=True)

    async def find_nodes(self, name: str) -> list[tuple[str, str]]:
        return await self._read(facts.find_nodes(name))

    async def events(self, stream: str, after: int, limit: int, job: str | None = None) -> list[EventRow]:
        return await self._read(facts.events(stream, after, limit, job), single=True)

    async def counters(self, pool: str) -> tuple[int, int]:
        term, _, event_no, _ = await self._read(facts.counters(pool), single=True)
        return term, event_no

    async def expired(self, pool: str, before_ms: int, limit: int) -> list[str]:
        return await self._read(facts.expired_jobs(pool, before_ms, limit), single=True)

    # --- idempotency keys -------------------------------------------------------------------------
    async def reserved(self, namespace: str, key: str) -> Reservation | None:
        return await self._read(facts.reserved(namespace, key), single=True)

    async def release(self, namespace: str, key: str) -> None:
        await self._change(statements.release, {"namespace": namespace, "key": key})

    async def answer(self, namespace: str, key: str, error: str) -> None:
        values = {"old_namespace": namespace, "old_key": key, "new_error": error}
        await self._change(statements.answer, values)

    # --- what is kept encrypted -------------------------------------------------------------------
    async def seal_get(self, namespace: str, kind: str, name: str) -> Sealed | None:
        return await self._read(facts.seal_get(namespace, kind, name), single=True)

    async def seal_list(self, namespace: str | None = None, kind: str | None = None) -> list[Sealed]:
        return await self._read(facts.seal_list(namespace, kind), single=True)

    async def seal_add(
        self, namespace: str, kind: str, name: str, data: bytes, user: str | None, at_ms: int
    ) -> bool:
        values = {"namespace": namespace, "kind": kind, "name": name, "data": data, "user": user}
        return await self._change_shared(statements.seal_add, {**values, "updated_at": at_ms}) == 1

    async def seal_delete(self, namespace: str, kind: str, name: str) -> bool:
        values = {"namespace": namespace, "kind": kind, "name": name}
        return await self._change_shared(statements.seal_delete, values) == 1
