"""Statements that write many rows at once: each column is an array, and the server takes them apart.

Measured against a statement a row (``executemany``), this takes a quarter of the time of both sides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Boolean, Integer, LargeBinary, Table, Text

from towline.store.postgresql.texts import dialect_of_ours, insert, text, without_zeros

_VALUES = re.compile(r" VALUES \([^()]*\)")
_PLACE = re.compile(r"\$(\d+)")
_TYPES: tuple[tuple[type[Any], str], ...] = (
    (BigInteger, "int8"),
    (Integer, "int4"),
    (Boolean, "bool"),
    (LargeBinary, "bytea"),
    (Text, "text"),
)


def type_name(table: Table, column: str) -> str:
    """PostgreSQL's name of a column's type."""
    kind = table.c[column].type
    return next(name for known, name in _TYPES if isinstance(kind, known))


def quoted(names: Sequence[str]) -> str:
    return ", ".join(dialect_of_ours.identifier_preparer.quote(name) for name in names)


def moved(sql: str, by: int) -> str:
    """The text with its places counted from ``by`` on."""
    return _PLACE.sub(lambda found: f"${int(found[1]) + by}", sql)


@cache
def insert_many(
    make: Callable[..., Any],
    table: Table,
    columns: tuple[str, ...],
    *args: Any,
    source: str = "",
    by: int = 0,
) -> str:
    """The text of ``make(insert, *args)``, which inserts one row of ``columns``, for arrays of them, one
    array a column, bound from place ``by + 1`` on. ``source``: a table of one row or none that is joined to
    them."""
    one = text(make, insert, *args).sql
    arrays = ", ".join(f"${by + at}::{type_name(table, name)}[]" for at, name in enumerate(columns, 1))
    names = quoted(columns)
    given = f"{source}, " if source else ""
    listed = ", ".join(f"given.{quoted([name])}" for name in columns)
    head, found, tail = _split(one)
    if found is None:
        raise AssertionError(f"{make.__name__} inserts no values")
    into = f"INSERT INTO {quoted([table.name])} ({names})"
    if not head.startswith(f"INSERT INTO {quoted([table.name])} ("):
        raise AssertionError(f"{make.__name__} inserts into another table: {head}")
    return f"{into} SELECT {listed} FROM {given}unnest({arrays}) AS given({names}){tail}"


def _split(sql: str) -> tuple[str, re.Match[str] | None, str]:
    found = _VALUES.search(sql)
    return (sql, None, "") if found is None else (sql[: found.start()], found, sql[found.end() :])


def arrays(rows: Sequence[Sequence[Any]]) -> list[Sequence[Any] | None]:
    """The columns of rows. One without any value costs nothing: for a null array the server fills in
    nulls."""
    return [None if cells.count(None) == len(cells) else cells for cells in zip(*rows, strict=True)]


def clean(rows: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Rows whose texts PostgreSQL keeps."""
    return [tuple(map(without_zeros, row)) for row in rows]
