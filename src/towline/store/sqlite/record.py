"""A job as running parts of it again has to know it, in one snapshot with its pool's counters."""

from __future__ import annotations

import sqlite3

from towline.core.rows import JobRecord
from towline.store import codec, statements
from towline.store.sqlite import reads
from towline.store.sqlite.loading import joined
from towline.store.sqlite.texts import text


def record(
    connection: sqlite3.Connection, pool: str, which: str, namespace: str, key: str | None
) -> JobRecord | None:
    """None where there is no such job. Raises Damaged."""
    found = reads.job(connection, which)
    if found is None:
        return None
    term, _, event_no, _ = reads.counters(connection, pool)
    of = {"job": which}
    return JobRecord(
        term=term,
        event_no=event_no,
        job=found[0],
        spec=found[1],
        tasks=reads.tasks(connection, which),
        ended=joined(connection.execute(text(statements.ended_of_job), of)),
        ranges=reads.select(connection, codec.RANGE, statements.ranges_of, of),
        elements=reads.select(connection, codec.ELEMENT, statements.unsuccessful_elements, of),
        taken=None if key is None else _digest(connection, namespace, key),
    )


def _digest(connection: sqlite3.Connection, namespace: str, key: str) -> str | None:
    values = {"namespace": namespace, "key": key}
    row = connection.execute(text(statements.reservation), values).fetchone()
    return None if row is None else str(row[statements.RESERVATION.index("digest")])
