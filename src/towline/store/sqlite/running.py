"""How plans and statements run on a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from towline.store.coordination.statements import SHARED, count_up
from towline.store.sql.plans import Cells, Plan
from towline.store.sqlite.texts import text

T = TypeVar("T")


def run(connection: sqlite3.Connection, plan: Plan[T]) -> T:
    """A plan's result; the caller has opened the transaction that makes it one snapshot."""
    found: Iterable[Cells] = ()
    try:
        ask = next(plan)
        while True:
            cursor = connection.execute(text(ask.make, *ask.args, **ask.options), ask.values)
            if ask.stream is None:
                found = cursor
            else:
                ask.stream(cursor)
                found = ()
            ask = plan.send(found)
    except StopIteration as done:
        return done.value


def changed_shared(
    connection: sqlite3.Connection, make: Callable[..., Any], values: Mapping[str, Any]
) -> int:
    """The rows that a statement changed, which is counted."""
    found = connection.execute(text(make), values).rowcount
    if found:
        connection.execute(text(count_up), SHARED)
    return found


def changed(
    connection: sqlite3.Connection, make: Callable[..., Any], many: Sequence[Mapping[str, Any]]
) -> list[int]:
    """The rows that a statement changed with each of these values."""
    statement = text(make)
    return [connection.execute(statement, values).rowcount for values in many]
