"""Everything that is written, as functions on a connection inside the writer's transaction."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

from msgspec import structs, to_builtins

from towline.core.rows import Changes
from towline.errors import StaleTerm
from towline.store import access_statements, codec, statements
from towline.store.access import AuditRow
from towline.store.delivery import statements as deliveries
from towline.store.delivery.rows import DeliveryRow
from towline.store.port import Reservation
from towline.store.sqlite.texts import insert, positional, text
from towline.store.upgrade import CLOSED, check_open

_ROWS_A_TURN = 5_000
"""Rows that retention deletes in one transaction: a leader's commit may wait behind it."""


def commit(pool: str, term: int, commit_no: int, changes: Changes) -> Callable[[sqlite3.Connection], None]:
    """The work of one commit. The rows are read now, not in the writer's thread: the pool goes on
    changing them as soon as the caller's thread gets a turn."""
    batches: list[tuple[str, list[tuple[Any, ...]]]] = []
    for name, layout in codec.WRITTEN:
        rows = getattr(changes, name)
        if rows:
            make = statements.append if name == "events" else statements.upsert
            batches.append((positional(make, layout, layout.columns), layout.encode(rows, pool)))
    gone = [{"pool": pool, "name": name} for name in changes.queues_gone]
    cut = [{"job": job, "task": task, "lo": lo} for job, task, lo in changes.ranges_gone]
    keys = [{**to_builtins(row), "pool": pool, "error": None} for row in changes.keys]
    counters = {"events": changes.event_no, "jobs": changes.job_seq}
    fence = {"pool": pool, "led_term": term, "before": commit_no, **counters}

    def write(connection: sqlite3.Connection) -> None:
        if connection.execute(text(statements.fence), fence).rowcount != 1:
            raise StaleTerm(
                f"commit {commit_no + 1} of pool {pool} in term {term} came too late: another leader leads it"
            )
        if cut:
            connection.executemany(text(statements.delete_range), cut)
        for statement, rows in batches:
            connection.executemany(statement, rows)
        if gone:
            connection.executemany(text(statements.delete_queue), gone)
        if keys:
            connection.executemany(text(statements.reserve, insert), keys)

    return write


def raise_term(connection: sqlite3.Connection, pool: str) -> int:
    check_open(connection.execute(CLOSED).fetchone()[0], "the store's file")
    return int(connection.execute(text(statements.raise_term, insert), {"pool": pool}).fetchone()[0])


# --- idempotency keys -----------------------------------------------------------------------------
def reserve(connection: sqlite3.Connection, wanted: Sequence[Reservation]) -> list[Reservation]:
    now_ms = time.time_ns() // 1_000_000
    stands: list[Reservation] = []
    for one in wanted:
        values: dict[str, Any] = {name: getattr(one, name) for name in statements.RESERVATION}
        connection.execute(text(statements.reserve, insert), values | {"created_at": now_ms})
        key = {"namespace": one.namespace, "key": one.key}
        found = connection.execute(text(statements.reservation), key).fetchone()
        stands.append(Reservation(**dict(zip(statements.RESERVATION, found, strict=True))))
    return stands


# --- what is kept encrypted -----------------------------------------------------------------------
def seal_put(
    connection: sqlite3.Connection,
    namespace: str,
    kind: str,
    name: str,
    data: bytes,
    user: str | None,
    at_ms: int,
) -> int:
    values = (namespace, kind, name, data, user, at_ms)
    names = (column for column in statements.SEALED if column != "version")
    named = dict(zip(names, values, strict=True))
    return int(connection.execute(text(statements.seal_put, insert), named).fetchone()[0])


# --- who did what, and what is owed ---------------------------------------------------------------
def audit_append(connection: sqlite3.Connection, rows: Sequence[AuditRow]) -> None:
    last = int(connection.execute(text(access_statements.audit_last)).fetchone()[0])
    numbered = [structs.asdict(row) | {"seq": seq} for seq, row in enumerate(rows, last + 1)]
    connection.executemany(text(access_statements.audit_append, insert), numbered)


def delivery_add(
    connection: sqlite3.Connection, pool: str, through: int, rows: Sequence[DeliveryRow]
) -> None:
    connection.execute(text(deliveries.cursor_put, insert), {"pool": pool, "number": through})
    connection.executemany(text(deliveries.delivery_add, insert), [structs.asdict(row) for row in rows])


# --- retention ------------------------------------------------------------------------------------
def expire_job(connection: sqlite3.Connection, job: str, before_ms: int) -> bool:
    """Delete a bounded part of an expired job; True once its own row is gone too, or it runs again."""
    row = connection.execute(text(statements.job_ended_at), {"job": job}).fetchone()
    if row is None or row[0] is None or row[0] >= before_ms:
        return True
    left = _ROWS_A_TURN
    for layout in statements.BELOW_A_JOB:
        deleted = connection.execute(
            text(statements.delete_below_job, layout), {"job": job, "count": left}
        ).rowcount
        left -= deleted
        if left <= 0:
            return False
    connection.execute(text(statements.delete_job), {"job": job})
    return True


def expire_events(connection: sqlite3.Connection, stream: str, before_ms: int) -> bool:
    """Delete a bounded number of the oldest events; True once none before ``before_ms`` is first."""
    oldest = connection.execute(
        text(statements.oldest_events), {"stream": stream, "count": _ROWS_A_TURN}
    ).fetchall()
    old = list(takewhile(lambda row: row[1] < before_ms, oldest))
    if old:
        connection.execute(text(statements.delete_events), {"stream": stream, "through": old[-1][0]})
    return len(old) < _ROWS_A_TURN


def expire_keys(connection: sqlite3.Connection, pool: str, before_ms: int) -> bool:
    """Delete a bounded number of old keys that stand for no job any more; True once there are none."""
    values = {"pool": pool, "before_ms": before_ms, "count": _ROWS_A_TURN}
    return connection.execute(text(statements.delete_keys), values).rowcount < _ROWS_A_TURN
