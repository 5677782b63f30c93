"""Tokens, enrolled nodes and the audit in SQLite: the part of the store's port in store/access.py."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from msgspec import structs

from towline.store import access_statements as statements
from towline.store.access import AuditRow, EnrolmentRow, TokenRow
from towline.store.sqlite.texts import insert, text
from towline.store.sqlite.writer import Writer

T = TypeVar("T")
_MAX_SEQ = 2**63 - 1


class SqliteAccess:
    """Mixed into SqliteStore, whose threads it uses."""

    _read: Callable[..., Awaitable[Any]]
    _writer: Writer

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._writer.run(work)

    async def token_put(self, row: TokenRow) -> None:
        values = structs.asdict(row)
        await self._write(lambda connection: connection.execute(text(statements.token_put, insert), values))

    async def token_list(self) -> list[TokenRow]:
        return await self._read(_rows, TokenRow, statements.TOKEN, statements.token_list)

    async def token_use(self, id: str, at_ms: int) -> bool:
        return await self._write(lambda c: _changed(c, statements.token_use, {"token": id, "at": at_ms}))

    async def token_delete(self, id: str) -> bool:
        return await self._write(lambda c: _changed(c, statements.token_delete, {"token": id}))

    async def enrolment_put(self, row: EnrolmentRow) -> None:
        values = structs.asdict(row)
        await self._write(lambda c: c.execute(text(statements.enrolment_put, insert), values))

    async def enrolment_list(self) -> list[EnrolmentRow]:
        return await self._read(_rows, EnrolmentRow, statements.ENROLMENT, statements.enrolment_list)

    async def enrolment_delete(self, node: str) -> bool:
        return await self._write(lambda c: _changed(c, statements.enrolment_delete, {"which": node}))

    async def audit_append(self, rows: Sequence[AuditRow]) -> None:
        rows = list(rows)
        await self._write(lambda connection: _append(connection, rows))

    async def audit_list(self, before_seq: int | None, limit: int) -> list[AuditRow]:
        values = {"before": _MAX_SEQ if before_seq is None else before_seq, "count": limit}
        return await self._read(_rows, AuditRow, statements.AUDIT, statements.audit_list, values)

    async def audit_expire(self, before_ms: int) -> int:
        values = {"before_ms": before_ms}
        return await self._write(lambda c: c.execute(text(statements.audit_expire), values).rowcount)


def _rows(
    connection: sqlite3.Connection,
    kind: Callable[..., T],
    columns: Sequence[str],
    make: Callable[..., Any],
    values: dict[str, Any] | None = None,
) -> list[T]:
    found = connection.execute(text(make), values or {})
    return [kind(**dict(zip(columns, row, strict=True))) for row in found]


def _changed(connection: sqlite3.Connection, make: Callable[..., Any], values: dict[str, Any]) -> bool:
    return connection.execute(text(make), values).rowcount == 1


def _append(connection: sqlite3.Connection, rows: Sequence[AuditRow]) -> None:
    last = int(connection.execute(text(statements.audit_last)).fetchone()[0])
    numbered = [structs.asdict(row) | {"seq": seq} for seq, row in enumerate(rows, last + 1)]
    connection.executemany(text(statements.audit_append, insert), numbered)
