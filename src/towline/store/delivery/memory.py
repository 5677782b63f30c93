"""Webhooks that are owed, in memory: the part of the store's port in rows.py."""

from __future__ import annotations

from collections.abc import Sequence

from towline.store.delivery.rows import DeliveryRow


class MemoryDeliveries:
    """Mixed into MemoryStore."""

    def __init__(self) -> None:
        self._cursors: dict[str, int] = {}
        self._deliveries: dict[tuple[str, int, int], DeliveryRow] = {}

    async def delivery_cursor(self, pool: str) -> int | None:
        return self._cursors.get(pool)

    async def delivery_add(self, pool: str, through: int, rows: Sequence[DeliveryRow]) -> None:
        self._cursors[pool] = through
        for row in rows:
            self._deliveries.setdefault(_key(row), row)

    async def delivery_put(self, row: DeliveryRow) -> None:
        if _key(row) in self._deliveries:
            self._deliveries[_key(row)] = row

    async def delivery_due(self, pool: str, now_ms: int, limit: int) -> list[DeliveryRow]:
        due = [
            row
            for row in self._deliveries.values()
            if row.pool == pool and row.state == "pending" and row.next_at <= now_ms
        ]
        return sorted(due, key=lambda row: (row.next_at, row.number, row.position))[:limit]

    async def delivery_of(self, job: str) -> list[DeliveryRow]:
        return [row for _, row in sorted(self._deliveries.items()) if row.job == job]

    async def delivery_expire(self, before_ms: int) -> int:
        old = [
            key for key, row in self._deliveries.items() if row.state != "pending" and row.next_at < before_ms
        ]
        for key in old:
            del self._deliveries[key]
        return len(old)


def _key(row: DeliveryRow) -> tuple[str, int, int]:
    return row.pool, row.number, row.position
