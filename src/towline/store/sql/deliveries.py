"""Webhooks that are owed: the part of the store's port in store/delivery/rows.py, in statements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import structs

from towline.store.delivery import statements
from towline.store.delivery.rows import DeliveryRow
from towline.store.sql.plans import Ask, Plan, Running, first

T = TypeVar("T")


class SqlDeliveries(Running):
    """Mixed into a store."""

    async def delivery_cursor(self, pool: str) -> int | None:
        return await self._read(_cursor(pool), single=True)

    async def delivery_put(self, row: DeliveryRow) -> None:
        values = {name: value for name, value in structs.asdict(row).items() if name not in statements.KEY}
        del values["job"], values["outcome"]
        values |= {f"key_{name}": getattr(row, name) for name in statements.KEY}
        await self._change(statements.delivery_put, values)

    async def delivery_due(self, pool: str, now_ms: int, limit: int) -> list[DeliveryRow]:
        values = {"which": pool, "pending": "pending", "now": now_ms, "count": limit}
        return await self._read(_listed(statements.delivery_due, values), single=True)

    async def delivery_of(self, job: str) -> list[DeliveryRow]:
        return await self._read(_listed(statements.delivery_of, {"which": job}), single=True)

    async def delivery_expire(self, before_ms: int) -> int:
        return await self._change(statements.delivery_expire, {"pending": "pending", "before": before_ms})


def _cursor(pool: str) -> Plan[int | None]:
    found = yield from first(statements.cursor_get, {"which": pool})
    return None if found is None else int(found[0])


def _listed(make: Callable[..., Any], values: dict[str, Any]) -> Plan[list[DeliveryRow]]:
    columns = statements.DELIVERY
    return [DeliveryRow(**dict(zip(columns, cells, strict=True))) for cells in (yield Ask(make, values))]
