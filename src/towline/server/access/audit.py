"""Who did what: one row for every request that was to change something, refused ones too.

Rows are written before the request is answered; those of requests at the same time share a
transaction. Where the store does not take them, the request has happened all the same, and the row
goes to the server's log instead.
"""

from __future__ import annotations

import asyncio

import structlog

from towline.errors import StoreError
from towline.store.access import AuditRow
from towline.store.port import Store

MOST_AT_ONCE = 500


class Audit:
    """Appends to the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[AuditRow, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("audit")

    async def record(self, row: AuditRow) -> None:
        """Return once it is kept."""
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, kept))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await kept

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
                try:
                    await self._store.audit_append([row for row, _ in batch])
                except StoreError as error:
                    for row, _ in batch:
                        self._log.error("not in the audit", reason=str(error), row=repr(row))
                for _, kept in batch:
                    if not kept.done():
                        kept.set_result(None)
        finally:
            self._writing = None
