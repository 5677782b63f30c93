"""Webhooks that are owed, in SQLite: the part of the store's port in rows.py."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from msgspec import structs

from towline.store.delivery import statements
from towline.store.delivery.rows import DeliveryRow
from towline.store.sqlite.texts import insert, text
from towline.store.sqlite.writer import Writer

T = TypeVar("T")


class SqliteDeliveries:
    """Mixed into SqliteStore, whose threads it uses."""

    _read: Callable[..., Awaitable[Any]]
    _writer: Writer

    async def delivery_cursor(self, pool: str) -> int | None:
        return await self._read(_cursor, pool)

    async def delivery_add(self, pool: str, through: int, rows: Sequence[DeliveryRow]) -> None:
        rows = list(rows)
        await self._writer.run(lambda connection: _add(connection, pool, through, rows))

    async def delivery_put(self, row: DeliveryRow) -> None:
        values = {name: value for name, value in structs.asdict(row).items() if name not in statements.KEY}
        values |= {f"key_{name}": getattr(row, name) for name in statements.KEY}
        await self._writer.run(lambda c: c.execute(text(statements.delivery_put), values))

    async def delivery_due(self, pool: str, now_ms: int, limit: int) -> list[DeliveryRow]:
        values = {"which": pool, "pending": "pending", "now": now_ms, "count": limit}
        return await self._read(_rows, statements.delivery_due, values)

    async def delivery_of(self, job: str) -> list[DeliveryRow]:
        return await self._read(_rows, statements.delivery_of, {"which": job})

    async def delivery_expire(self, before_ms: int) -> int:
        values = {"pending": "pending", "before": before_ms}
        return await self._writer.run(lambda c: c.execute(text(statements.delivery_expire), values).rowcount)


def _cursor(connection: sqlite3.Connection, pool: str) -> int | None:
    found = connection.execute(text(statements.cursor_get), {"which": pool}).fetchone()
    return None if found is None else int(found[0])


def _add(connection: sqlite3.Connection, pool: str, through: int, rows: Sequence[DeliveryRow]) -> None:
    connection.execute(text(statements.cursor_put, insert), {"pool": pool, "number": through})
    connection.executemany(text(statements.delivery_add, insert), [structs.asdict(row) for row in rows])


def _rows(
    connection: sqlite3.Connection, make: Callable[..., Any], values: dict[str, Any]
) -> list[DeliveryRow]:
    found = connection.execute(text(make), values)
    return [DeliveryRow(**dict(zip(statements.DELIVERY, row, strict=True))) for row in found]
