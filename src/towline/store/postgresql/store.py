"""The store in a PostgreSQL database, for several servers: commits of one statement, ten connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from towline.core.leadership import LEASE_MS
from towline.core.rows import Changes, PoolSnapshot
from towline.errors import StaleTerm, StoreError, WrongSetting
from towline.store.access import AuditRow
from towline.store.address import Address
from towline.store.codec import Damaged
from towline.store.delivery.rows import DeliveryRow
from towline.store.port import Reservation
from towline.store.postgresql import writes
from towline.store.postgresql.commit import Written, written
from towline.store.postgresql.connections import COMMIT_S, Connections, Driver, Lane
from towline.store.postgresql.errors import EXPECTED, explain, not_text
from towline.store.postgresql.running import changed_each, changed_shared, run, run_in_snapshot
from towline.store.postgresql.texts import without_zeros
from towline.store.postgresql.upgrade import prepare
from towline.store.sql import loading
from towline.store.sql.access import SqlAccess
from towline.store.sql.coordination import SqlCoordination
from towline.store.sql.deliveries import SqlDeliveries
from towline.store.sql.plans import Plan
from towline.store.sql.reading import SqlFacts

T = TypeVar("T")
Work = Callable[[Driver], Awaitable[T]]


def _heard(task: asyncio.Future[Any]) -> None:
    """A failure of what nobody waits for any more is no news."""
    if not task.cancelled():
        task.exception()


class PostgresStore(SqlFacts, SqlAccess, SqlCoordination, SqlDeliveries):
    """A ``Store`` (see the port) in the database that ``url`` names (``postgresql://…``).

    PostgreSQL keeps no character 0 in a text: U+FFFD stands in its place. ``lease_ms`` is how long this
    server's leases last. Raises WrongSetting for a URL that is none.
    """

    def __init__(self, url: str, lease_ms: int = LEASE_MS) -> None:
        try:
            self.address = Address(url)
        except ValueError as error:
            raise WrongSetting(str(error)) from None
        self._connections = Connections(self.address, lease_ms)
        self._closed = False

    @property
    def open_connections(self) -> int:
        """How many there are now, in use or idle."""
        return sum(lane.open for lane in self._connections.lanes)

    async def open(self) -> None:
        """As the port says; a leader's connection and the leases' are there from now on, however many others
        want some of the database later."""
        await prepare(self.address)
        await self._connections.reserve()

    async def close(self) -> None:
        """Finish what was handed over and close the connections."""
        self._closed = True
        await self._connections.close()

    # --- how statements run -----------------------------------------------------------------------
    async def _with(self, lane: Lane, work: Work[T], *, writing: bool) -> T:
        """``work`` with a connection. One that was cancelled goes on to its end all the same: whoever
        writes has either asked for it or not."""
        if self._closed:
            raise StoreError("the store is closed")
        if writing:
            doing = asyncio.ensure_future(self._done(lane, work, doubtful=True))
            doing.add_done_callback(_heard)
            return await asyncio.shield(doing)
        return await self._done(lane, work, doubtful=False)

    async def _done(self, lane: Lane, work: Work[T], *, doubtful: bool) -> T:
        try:
            async with lane.take() as connection:
                return await work(connection)
        except EXPECTED as error:
            raise explain(self.address, error, doubtful=doubtful) from error
        except Damaged as damage:
            raise StoreError(f"{self.address} is damaged: {damage}") from damage

    async def _write(self, work: Work[T]) -> T:
        return await self._with(self._connections.others, work, writing=True)

    async def _read(self, plan: Plan[T], *, single: bool = False, urgent: bool = False) -> T:
        lane = self._connections.leases if urgent else self._connections.others
        way = run if single else run_in_snapshot
        return await self._with(lane, lambda connection: way(connection, plan), writing=False)

    async def _change(
        self, make: Callable[..., Any], values: Mapping[str, Any], *, urgent: bool = False
    ) -> int:
        return (await self._change_each(make, [values], urgent=urgent))[0]

    async def _change_shared(self, make: Callable[..., Any], values: Mapping[str, Any]) -> int:
        others = self._connections.others
        return await self._with(
            others, lambda connection: changed_shared(connection, make, values), writing=True
        )

    async def _change_each(
        self, make: Callable[..., Any], many: Sequence[Mapping[str, Any]], *, urgent: bool = False
    ) -> Sequence[int]:
        lane = self._connections.leases if urgent else self._connections.others
        return await self._with(lane, lambda connection: changed_each(connection, make, many), writing=True)

    # --- the leader -------------------------------------------------------------------------------
    async def raise_term(self, pool: str) -> int:
        leaders = self._connections.leaders
        return await self._with(leaders, lambda connection: writes.raise_term(connection, pool), writing=True)

    async def load(self, pool: str, term: int) -> tuple[PoolSnapshot, dict[str, str]]:
        plan = loading.load(pool, term)
        leaders = self._connections.leaders
        return await self._with(leaders, lambda connection: run_in_snapshot(connection, plan), writing=False)

    async def commit(self, pool: str, term: int, commit_no: int, changes: Changes) -> None:
        ready = written(pool, term, commit_no, changes)
        leaders = self._connections.leaders
        if await self._with(leaders, lambda connection: _send(connection, ready), writing=True) != 1:
            raise StaleTerm(
                f"commit {commit_no + 1} of pool {pool} in term {term} came too late: another leader leads it"
            )

    async def expire(self, pool: str, before_ms: int, limit: int) -> int:
        jobs = await self.expired(pool, before_ms, limit)
        for job in jobs:
            while not await self._write(lambda c, job=job: writes.expire_job(c, job, before_ms)):
                pass
        for make in (writes.expire_events, writes.expire_keys):
            while not await self._write(lambda c, make=make: make(c, pool, before_ms)):
                pass
        return len(jobs)

    # --- what takes more than one statement -------------------------------------------------------
    async def reserve(self, wanted: Sequence[Reservation]) -> list[Reservation]:
        wanted = list(wanted)
        return await self._write(lambda connection: writes.reserve(connection, wanted))

    async def seal_put(
        self, namespace: str, kind: str, name: str, data: bytes, user: str | None, at_ms: int
    ) -> int:
        values = (namespace, kind, name, data, user, at_ms)
        return await self._write(lambda connection: writes.seal_put(connection, *values))

    async def audit_append(self, rows: Sequence[AuditRow]) -> None:
        rows = list(rows)
        await self._write(lambda connection: writes.audit_append(connection, rows))

    async def delivery_add(self, pool: str, through: int, rows: Sequence[DeliveryRow]) -> None:
        rows = list(rows)
        await self._write(lambda connection: writes.delivery_add(connection, pool, through, rows))


async def _send(connection: Driver, ready: Written) -> int:
    """How many rows the fence found."""
    try:
        return await connection.fetchval(ready.sql, *ready.values, timeout=COMMIT_S)
    except Exception as error:
        if not not_text(error):
            raise
    # Refused before anything was run: no text with the character 0 is ever bound.
    values = map(_column_without_zeros, ready.values)
    return await connection.fetchval(ready.sql, *values, timeout=COMMIT_S)


def _column_without_zeros(column: Any) -> Any:
    many: Any = column
    return tuple(map(without_zeros, many)) if isinstance(column, tuple) else without_zeros(column)
