"""Webhooks that are owed, and how far the events were looked through."""

from __future__ import annotations

from msgspec import structs

from towline.store.delivery.rows import DeliveryRow
from towline.store.port import Store


def owed(number: int, **fields: object) -> DeliveryRow:
    values = {"pool": "default", "position": 0, "job": "j1", "outcome": "failed", "next_at": 10}
    return DeliveryRow(number=number, **{**values, **fields})  # type: ignore[arg-type]


async def test_rows_are_added_once_with_how_far_was_looked(store: Store) -> None:
    assert await store.delivery_cursor("default") is None
    first = owed(3)
    await store.delivery_add("default", 5, [first])
    done = structs.replace(first, state="delivered", attempts=2, next_at=20)
    await store.delivery_put(done)
    await store.delivery_add("default", 7, [first, owed(6, position=1)])  # found again after a crash
    assert await store.delivery_cursor("default") == 7
    assert await store.delivery_cursor("other") is None
    assert await store.delivery_of("j1") == [done, owed(6, position=1)]
    assert await store.delivery_of("j2") == []


async def test_what_is_due_comes_longest_due_first(store: Store) -> None:
    rows = [
        owed(1, next_at=30),
        owed(2, next_at=20),
        owed(3, next_at=41),
        owed(4, next_at=5, state="failed", message="no"),
        owed(5, pool="other"),
        owed(6, next_at=20, position=1),
    ]
    await store.delivery_add("default", 9, rows)
    assert await store.delivery_due("default", 40, 9) == [rows[1], rows[5], rows[0]]
    assert await store.delivery_due("default", 40, 1) == [rows[1]]


async def test_what_is_over_goes_with_time_and_what_is_pending_stays(store: Store) -> None:
    rows = [owed(1), owed(2, state="delivered"), owed(3, state="failed", next_at=11)]
    await store.delivery_add("default", 3, rows)
    assert await store.delivery_expire(11) == 1
    assert await store.delivery_of("j1") == [rows[0], rows[2]]
    await store.delivery_put(structs.replace(rows[1], attempts=1))  # gone meanwhile
    assert await store.delivery_of("j1") == [rows[0], rows[2]]
