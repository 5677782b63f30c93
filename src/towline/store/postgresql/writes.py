"""What takes more than one statement, as functions on a connection."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from msgspec import structs
from sqlalchemy import Select

from towline.store import access_statements, statements
from towline.store.access import AuditRow
from towline.store.delivery import statements as deliveries
from towline.store.delivery.rows import DeliveryRow
from towline.store.port import Reservation
from towline.store.postgresql.connections import Driver
from towline.store.postgresql.many import arrays, clean, insert_many, quoted
from towline.store.postgresql.running import changed, count
from towline.store.postgresql.texts import text
from towline.store.schema import audit, delivery, idempotency
from towline.store.upgrade import CLOSED, check_open

_ROWS_A_TURN = 5_000
"""Rows that retention deletes in one transaction."""
_AUDIT_LOCK = 0x746F776C0002
"""Whoever appends to the audit has it: its numbers have no gaps, whichever server appends."""
_KEYS = ("namespace", "key", "digest", "job", "pool", "error", "created_at")


# --- idempotency keys -----------------------------------------------------------------------------
async def reserve(connection: Driver, wanted: Sequence[Reservation]) -> list[Reservation]:
    """In the order of the keys, so that two who reserve the same ones do not wait for each other."""
    stands: dict[tuple[str, str], Reservation] = {}
    asked: dict[tuple[str, str], Reservation] = {}
    for one in wanted:
        asked.setdefault((one.namespace, one.key), one)
    while missing := sorted(asked.keys() - stands.keys()):
        stands |= await _reserved(connection, [asked[key] for key in missing])
        missing = [key for key in missing if key not in stands]
        if missing:  # another one's, unless that was released just now
            stands |= await _standing(connection, missing)
    return [stands[one.namespace, one.key] for one in wanted]


async def _reserved(connection: Driver, wanted: Sequence[Reservation]) -> dict[tuple[str, str], Reservation]:
    """Those that were free."""
    now_ms = time.time_ns() // 1_000_000
    cells = [(*(getattr(one, name) for name in statements.RESERVATION), now_ms) for one in wanted]
    sql = insert_many(statements.reserve, idempotency, _KEYS) + " RETURNING namespace, key"
    found = await connection.fetch(sql, *arrays(clean(cells)))
    by_key = {(one.namespace, one.key): one for one in wanted}
    return {(namespace, key): by_key[namespace, key] for namespace, key in found}


_STANDING = (
    f"SELECT {', '.join(f'idempotency.{quoted([name])}' for name in statements.RESERVATION)} "
    "FROM idempotency "
    "JOIN unnest($1::text[], $2::text[]) AS asked(namespace, key) "
    'ON idempotency.namespace = asked.namespace COLLATE "C" AND idempotency.key = asked.key COLLATE "C"'
)


async def _standing(
    connection: Driver, keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Reservation]:
    found = await connection.fetch(_STANDING, *arrays(clean(keys)))
    rows = [Reservation(**dict(zip(statements.RESERVATION, cells, strict=True))) for cells in found]
    return {(row.namespace, row.key): row for row in rows}


# --- single values that come back -----------------------------------------------------------------
async def raise_term(connection: Driver, pool: str) -> int:
    """Not where the store was closed since this server opened it: asked after the pool's row is ours, so that
    whoever fills the store is behind us or has closed it."""
    found = text(statements.raise_term)
    async with connection.transaction():
        term = int(await connection.fetchval(found.sql, *found.bound({"pool": pool})))
        check_open(await connection.fetchval(CLOSED), "the database")
    return term


async def seal_put(connection: Driver, *values: Any) -> int:
    """``values``: those of statements.SEALED in order, without the version, which is returned."""
    names = (column for column in statements.SEALED if column != "version")
    found = text(statements.seal_put)
    return int(await connection.fetchval(found.sql, *found.bound(dict(zip(names, values, strict=True)))))


# --- who did what, and what is owed ---------------------------------------------------------------
async def audit_append(connection: Driver, rows: Sequence[AuditRow]) -> None:
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _AUDIT_LOCK)
        last = int(await connection.fetchval(text(access_statements.audit_last).sql))
        numbered = [structs.astuple(structs.replace(row, seq=seq)) for seq, row in enumerate(rows, last + 1)]
        sql = insert_many(access_statements.audit_append, audit, access_statements.AUDIT)
        await connection.execute(sql, *arrays(clean(numbered)))


async def delivery_add(connection: Driver, pool: str, through: int, rows: Sequence[DeliveryRow]) -> None:
    async with connection.transaction():
        await changed(connection, deliveries.cursor_put, {"pool": pool, "number": through})
        if rows:
            cells = [structs.astuple(row) for row in rows]
            sql = insert_many(deliveries.delivery_add, delivery, deliveries.DELIVERY)
            await connection.execute(sql, *arrays(clean(cells)))


# --- retention ------------------------------------------------------------------------------------
def _job_ended_at() -> Select[*tuple[Any, ...]]:
    """With the row locked: meanwhile no leader's commit lets the job run again."""
    return statements.job_ended_at().with_for_update()


async def expire_job(connection: Driver, job: str, before_ms: int) -> bool:
    """Delete a bounded part of an expired job; True once its own row is gone too, or it runs again."""
    async with connection.transaction():
        ended_at = await connection.fetchval(text(_job_ended_at).sql, job)
        if ended_at is None or ended_at >= before_ms:
            return True
        left = _ROWS_A_TURN
        for layout in statements.BELOW_A_JOB:
            found = text(statements.delete_below_job, layout)
            left -= count(await connection.execute(found.sql, *found.bound({"job": job, "count": left})))
            if left <= 0:
                return False
        await changed(connection, statements.delete_job, {"job": job})
        return True


async def expire_events(connection: Driver, stream: str, before_ms: int) -> bool:
    """Delete a bounded number of the oldest events; True once none before ``before_ms`` is first."""
    oldest = text(statements.oldest_events)
    rows: list[Any] = await connection.fetch(
        oldest.sql, *oldest.bound({"stream": stream, "count": _ROWS_A_TURN})
    )
    old = list(takewhile(lambda row: row[1] < before_ms, rows))
    if old:
        await changed(connection, statements.delete_events, {"stream": stream, "through": old[-1][0]})
    return len(old) < _ROWS_A_TURN


async def expire_keys(connection: Driver, pool: str, before_ms: int) -> bool:
    """Delete a bounded number of old keys that stand for no job any more; True once there are none."""
    values = {"pool": pool, "before_ms": before_ms, "count": _ROWS_A_TURN}
    return await changed(connection, statements.delete_keys, values) < _ROWS_A_TURN
