"""The facts that any server reads, as functions on a connection that sees one snapshot."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from towline.core.rows import AttemptRow, ElementRow, EventRow, JobRow, NodeRow, SpecRow, TaskRow
from towline.store import codec, statements
from towline.store.codec import Layout
from towline.store.port import ElementPage, Sealed
from towline.store.sqlite.texts import text

R = TypeVar("R", bound=Struct)

_MAX_SEQ = 2**63 - 1
_MOST_OF_A_PREFIX = 10


def select(
    connection: sqlite3.Connection,
    layout: Layout[R],
    make: Callable[..., Any],
    values: dict[str, Any],
    **options: Any,
) -> list[R]:
    """The rows of a statement. Raises Damaged."""
    decode = layout.decode
    return [decode(cells) for cells in connection.execute(text(make, **options), values)]


def find_jobs(connection: sqlite3.Connection, namespace: str, argument: str) -> list[JobRow]:
    values = {"namespace": namespace, "job": argument, "name": argument}
    for make in (statements.visible_job, statements.newest_of_name):
        found = select(connection, codec.JOB, make, values)
        if found:
            return found
    if not argument:
        return []
    # Bytes order text here, and no character is above this one.
    values |= {"prefix": argument, "prefix_end": argument + "\U0010ffff"}
    return select(connection, codec.JOB, statements.jobs_of_prefix, values | {"count": _MOST_OF_A_PREFIX})


def jobs(
    connection: sqlite3.Connection,
    namespace: str,
    before_seq: int | None,
    limit: int,
    states: Sequence[str],
) -> list[JobRow]:
    below = _MAX_SEQ if before_seq is None else before_seq
    values: dict[str, Any] = {"namespace": namespace, "before_seq": below, "count": limit}
    if not states:
        return select(connection, codec.JOB, statements.newest_jobs, values, of_state=False)
    found: list[JobRow] = []
    for state in sorted(set(states)):
        one = values | {"state": state}
        found += select(connection, codec.JOB, statements.newest_jobs, one, of_state=True)
    return sorted(found, key=lambda row: -row.seq)[:limit]


def job(connection: sqlite3.Connection, which: str) -> tuple[JobRow, SpecRow] | None:
    rows = select(connection, codec.JOB, statements.job_by_id, {"job": which})
    specs = select(connection, codec.SPEC, statements.spec_of, {"job": which})
    return (rows[0], specs[0]) if rows and specs else None


def tasks(connection: sqlite3.Connection, which: str) -> list[TaskRow]:
    return select(connection, codec.TASK, statements.tasks_of, {"job": which})


def elements(connection: sqlite3.Connection, which: str, task: int, after: int, through: int) -> ElementPage:
    values = {"job": which, "task": task, "after": after, "through": through}
    return ElementPage(
        elements=select(connection, codec.ELEMENT, statements.elements_page, values),
        ranges=select(connection, codec.RANGE, statements.ranges_page, values),
        attempts=select(connection, codec.ATTEMPT, statements.attempts_page, values),
    )


def first_failure(connection: sqlite3.Connection, which: str) -> ElementRow | None:
    return next(iter(select(connection, codec.ELEMENT, statements.first_failure, {"job": which})), None)


def attempt(
    connection: sqlite3.Connection, which: str, task: int, index: int, number: int
) -> AttemptRow | None:
    values = {"job": which, "task": task, "idx": index, "number": number}
    return next(iter(select(connection, codec.ATTEMPT, statements.attempt_by_key, values)), None)


def nodes(connection: sqlite3.Connection, pool: str) -> list[NodeRow]:
    return select(connection, codec.NODE, statements.nodes_of, {"pool": pool})


def events(
    connection: sqlite3.Connection, stream: str, after: int, limit: int, which: str | None
) -> list[EventRow]:
    values = {"stream": stream, "after": after, "count": limit, "job": which}
    return select(connection, codec.EVENT, statements.events_after, values, of_job=which is not None)


def counters(connection: sqlite3.Connection, pool: str) -> tuple[int, int, int, int]:
    """(term, commit_no, event_no, job_seq); zeros where there is no such pool."""
    row = connection.execute(text(statements.counters), {"pool": pool}).fetchone()
    return (0, 0, 0, 0) if row is None else row


def seal_get(connection: sqlite3.Connection, namespace: str, kind: str, name: str) -> Sealed | None:
    values = {"namespace": namespace, "kind": kind, "name": name}
    row = connection.execute(text(statements.seal_get), values).fetchone()
    return None if row is None else _sealed(row)


def seal_list(connection: sqlite3.Connection, namespace: str | None, kind: str | None) -> list[Sealed]:
    rows = [_sealed(row) for row in connection.execute(text(statements.seal_list))]
    return [row for row in rows if namespace in (None, row.namespace) and kind in (None, row.kind)]


def _sealed(row: tuple[Any, ...]) -> Sealed:
    return Sealed(**dict(zip(statements.SEALED, row, strict=True)))
