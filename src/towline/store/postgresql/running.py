"""How plans and statements run on a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from towline.store.coordination.statements import SHARED, count_up
from towline.store.postgresql.connections import Driver
from towline.store.postgresql.texts import text
from towline.store.sql.plans import Ask, Cells, Plan

T = TypeVar("T")
_ROWS_A_PIECE = 5_000


async def run(connection: Driver, plan: Plan[T]) -> T:
    """A plan's result, each of its statements in a snapshot of its own."""
    try:
        ask = next(plan)
        while True:
            ask = plan.send(await _asked(connection, ask))
    except StopIteration as done:
        return done.value


async def run_in_snapshot(connection: Driver, plan: Plan[T]) -> T:
    """A plan's result, all of it in one snapshot."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return await run(connection, plan)


async def _asked(connection: Driver, ask: Ask) -> Iterable[Cells]:
    found = text(ask.make, *ask.args, **ask.options)
    values = found.bound(ask.values)
    if ask.stream is None:
        return await connection.fetch(found.sql, *values)
    cursor = await connection.cursor(found.sql, *values)
    while rows := await cursor.fetch(_ROWS_A_PIECE):
        ask.stream(rows)
    return ()


async def changed(connection: Driver, make: Callable[..., Any], values: Mapping[str, Any]) -> int:
    """The rows that a statement changed."""
    found = text(make)
    return count(await connection.execute(found.sql, *found.bound(values)))


async def changed_shared(connection: Driver, make: Callable[..., Any], values: Mapping[str, Any]) -> int:
    """The rows that a statement changed, which is counted."""
    async with connection.transaction():
        found = await changed(connection, make, values)
        if found:
            await changed(connection, count_up, SHARED)
        return found


async def changed_each(
    connection: Driver, make: Callable[..., Any], many: Sequence[Mapping[str, Any]]
) -> list[int]:
    """The rows that a statement changed with each of these values, in one transaction."""
    if len(many) < 2:
        return [await changed(connection, make, values) for values in many]
    async with connection.transaction():
        return [await changed(connection, make, values) for values in many]


def count(status: str) -> int:
    """The rows that a command's status speaks of, such as ``INSERT 0 3``."""
    last = status.rpartition(" ")[2]
    return int(last) if last.isdigit() else 0
