"""Servers and leases in SQLite: the part of the store's port in rows.py."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import structs

from towline.core.leadership import NOBODY, LeaseRow
from towline.store.coordination import statements
from towline.store.coordination.rows import PoolLease, ServerRow
from towline.store.sqlite.texts import insert, text
from towline.store.sqlite.writer import Writer


class SqliteCoordination:
    """Mixed into SqliteStore, whose threads it uses."""

    _read: Callable[..., Awaitable[Any]]
    _writer: Writer

    async def pool_create(self, pool: str) -> bool:
        statement = text(statements.pool_create, insert)
        return await self._writer.run(lambda c: c.execute(statement, {"pool": pool}).rowcount == 1)

    async def lease_read(self) -> list[PoolLease]:
        return await self._read(_leases)

    async def lease_take(self, expected: LeaseRow, holder: str, at_ms: int) -> bool:
        values = {"pool": expected.pool, "holder": holder, "taken_at": at_ms}
        values |= {"expected": expected.holder, "renewals": expected.renewals + 1}
        statement = text(statements.lease_take, insert)
        return await self._writer.run(lambda c: c.execute(statement, values).rowcount == 1)

    async def lease_renew(self, holder: str, pools: Sequence[str]) -> list[str]:
        return await self._change(text(statements.lease_renew), {"owner": holder}, pools)

    async def lease_release(self, holder: str, pools: Sequence[str]) -> list[str]:
        return await self._change(text(statements.lease_release), {"owner": holder, "nobody": NOBODY}, pools)

    async def _change(self, statement: str, values: dict[str, Any], pools: Sequence[str]) -> list[str]:
        pools = sorted(pools)
        return await self._writer.run(
            lambda c: [pool for pool in pools if c.execute(statement, values | {"which": pool}).rowcount == 1]
        )

    async def server_put(self, row: ServerRow) -> None:
        values = structs.asdict(row)
        await self._writer.run(lambda c: c.execute(text(statements.server_put, insert), values))

    async def server_list(self) -> list[ServerRow]:
        return await self._read(_servers)

    async def server_delete(self, id: str) -> bool:
        statement = text(statements.server_delete)
        return await self._writer.run(lambda c: c.execute(statement, {"which": id}).rowcount == 1)


def _leases(connection: sqlite3.Connection) -> list[PoolLease]:
    return [pool_lease(row) for row in connection.execute(text(statements.lease_read))]


def pool_lease(row: Sequence[Any]) -> PoolLease:
    """A row of ``statements.lease_read``."""
    pool, term, event_no, holder, renewals, taken_at = row
    if holder is None:
        return PoolLease(term, event_no, LeaseRow(pool))
    return PoolLease(term, event_no, LeaseRow(pool, holder, renewals, taken_at))


def _servers(connection: sqlite3.Connection) -> list[ServerRow]:
    found = connection.execute(text(statements.server_list))
    return [ServerRow(**dict(zip(statements.SERVER, row, strict=True))) for row in found]
