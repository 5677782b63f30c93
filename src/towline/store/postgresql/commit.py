"""A leader's commit: one statement, which is one transaction and one trip to the database.

The fence is its first part, and every other part draws its rows from the one that the fence gives back:
where that finds no row, nothing is written. So there is never a transaction open between two messages, and a
leader that is frozen at any moment holds no lock against its successor.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from msgspec.structs import astuple

from towline.core.rows import Changes
from towline.store import codec, statements
from towline.store.codec import Layout
from towline.store.postgresql.many import arrays, insert_many, moved
from towline.store.postgresql.texts import text
from towline.store.schema import idempotency, metadata

_LAYOUTS: dict[str, Layout[Any]] = dict(codec.WRITTEN)
_KEY_COLUMNS = ("namespace", "key", "digest", "job", "created_at", "pool", "error")
_FENCE = "fence"

_GONE = {
    "ranges_gone": (
        "DELETE FROM element_range "
        "USING fence, unnest($1::text[], $2::int4[], $3::int8[]) AS gone(job, task, lo) "
        'WHERE element_range.job = gone.job COLLATE "C" AND element_range.task = gone.task '
        "AND element_range.lo = gone.lo",
        3,
    ),
    "queues_gone": (
        "DELETE FROM queue USING fence, unnest($1::text[], $2::text[]) AS gone(pool, name) "
        'WHERE queue.pool = gone.pool COLLATE "C" AND queue.name = gone.name COLLATE "C"',
        2,
    ),
}
"""What takes rows away, and how many arrays it is given."""


class Written(NamedTuple):
    """A commit, ready to be sent: gives back how many rows the fence found."""

    sql: str
    values: list[Any]


def written(pool: str, term: int, commit_no: int, changes: Changes) -> Written:
    """All rows are read now: the pool goes on changing them as soon as this has returned."""
    parts = [(name, arrays(cells)) for name, cells in _cells(pool, changes) if cells]
    counters = {"events": changes.event_no, "jobs": changes.job_seq}
    fence = {"pool": pool, "led_term": term, "before": commit_no, **counters}
    values = text(statements.fence).bound(fence)
    for _, columns in parts:
        values += columns
    return Written(_sql(tuple(name for name, _ in parts)), values)


def _cells(pool: str, changes: Changes) -> list[tuple[str, Sequence[Sequence[Any]]]]:
    """The rows of each part. A row that one part takes away is in no other: within a statement there is no
    before and after."""
    found: list[tuple[str, Sequence[Sequence[Any]]]] = []
    queues_gone = set(changes.queues_gone)
    for name, layout in codec.WRITTEN:
        rows = getattr(changes, name)
        if name == "queues" and queues_gone:
            rows = [row for row in rows if row.name not in queues_gone]
        if rows:
            found.append((name, layout.encode(rows, pool)))
    ranges = changes.ranges if changes.ranges_gone else []
    stay = {(row.job, row.task, row.lo) for row in ranges}
    found.append(("ranges_gone", [key for key in changes.ranges_gone if key not in stay]))
    found.append(("queues_gone", [(pool, name) for name in changes.queues_gone]))
    found.append(("keys", [(*astuple(row), pool, None) for row in changes.keys]))
    return found


@cache
def _sql(parts: tuple[str, ...]) -> str:
    fence = text(statements.fence)
    clauses = [f"{_FENCE} AS ({fence.sql} RETURNING 1)"]
    by = len(fence.names)
    for name in parts:
        sql, places = _part(name, by)
        clauses.append(f"{name}_ AS ({sql})")
        by += places
    return f"WITH {', '.join(clauses)} SELECT count(*) FROM {_FENCE}"


def _part(name: str, by: int) -> tuple[str, int]:
    """The text of a part whose values are bound from ``by`` on, and how many there are."""
    if name in _GONE:
        sql, places = _GONE[name]
        return moved(sql, by), places
    if name == "keys":
        sql = insert_many(statements.reserve, idempotency, _KEY_COLUMNS, source=_FENCE, by=by)
        return sql, len(_KEY_COLUMNS)
    layout = _LAYOUTS[name]
    make = statements.append if name == "events" else statements.upsert
    table = metadata.tables[layout.table]
    return insert_many(make, table, layout.columns, layout, source=_FENCE, by=by), len(layout.columns)
