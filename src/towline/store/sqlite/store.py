"""The store in one SQLite file, for one server: WAL with full sync, one writer, a few readers."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from towline.core.rows import Changes, PoolSnapshot
from towline.errors import StoreError
from towline.store.access import AuditRow
from towline.store.codec import Damaged
from towline.store.delivery.rows import DeliveryRow
from towline.store.port import Reservation
from towline.store.sql import loading
from towline.store.sql.access import SqlAccess
from towline.store.sql.coordination import SqlCoordination
from towline.store.sql.deliveries import SqlDeliveries
from towline.store.sql.plans import Plan
from towline.store.sql.reading import SqlFacts
from towline.store.sqlite import writes
from towline.store.sqlite.connections import explain, open_reader, open_writer
from towline.store.sqlite.running import changed, changed_shared, run
from towline.store.sqlite.writer import Writer
from towline.store.upgrade import prepare_sqlite

T = TypeVar("T")

_READERS = 4


class SqliteStore(SqlFacts, SqlAccess, SqlCoordination, SqlDeliveries):
    """A ``Store`` (see the port) in the file at ``path``, made with mode 0600 where there is none.

    No method blocks the event loop: what is written goes through the one writer thread, what is
    read through a few threads with a read-only connection each, in a snapshot of its own.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()
        self._writer = Writer(partial(open_writer, self.path), partial(explain, self.path))
        self._readers = ThreadPoolExecutor(_READERS, "store-reader")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._closed = False

    async def open(self) -> None:
        await asyncio.to_thread(self._prepare)
        self._writer.start()

    async def close(self) -> None:
        """Finish what was handed over and close the file."""
        self._closed = True
        await asyncio.to_thread(self._readers.shutdown)
        for connection in self._connections:
            connection.close()
        await self._writer.stop()

    def _prepare(self) -> None:
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = open_writer(self.path)
            try:
                prepare_sqlite(connection, self.path)
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as error:
            raise explain(self.path, error) from error

    # --- how statements run -----------------------------------------------------------------------
    async def _read(self, plan: Plan[T], *, single: bool = False, urgent: bool = False) -> T:
        if self._closed:
            raise StoreError("the store is closed")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._in_snapshot, plan)

    def _in_snapshot(self, plan: Plan[T]) -> T:
        try:
            connection = self._reader()
            connection.execute("BEGIN")
            try:
                return run(connection, plan)
            finally:
                connection.execute("COMMIT")
        except (sqlite3.Error, OSError, OverflowError) as error:
            raise explain(self.path, error) from error
        except Damaged as damage:
            raise StoreError(f"{self.path} is damaged: {damage}") from damage

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = open_reader(self.path)
            self._connections.append(connection)
        return connection

    async def _change(
        self, make: Callable[..., Any], values: Mapping[str, Any], *, urgent: bool = False
    ) -> int:
        return (await self._change_each(make, [values]))[0]

    async def _change_shared(self, make: Callable[..., Any], values: Mapping[str, Any]) -> int:
        return await self._writer.run(lambda connection: changed_shared(connection, make, values))

    async def _change_each(
        self, make: Callable[..., Any], many: Sequence[Mapping[str, Any]], *, urgent: bool = False
    ) -> Sequence[int]:
        return await self._writer.run(lambda connection: changed(connection, make, many))

    # --- the leader -------------------------------------------------------------------------------
    async def raise_term(self, pool: str) -> int:
        return await self._writer.run(lambda connection: writes.raise_term(connection, pool))

    async def load(self, pool: str, term: int) -> tuple[PoolSnapshot, dict[str, str]]:
        return await self._read(loading.load(pool, term))

    async def commit(self, pool: str, term: int, commit_no: int, changes: Changes) -> None:
        await self._writer.run(writes.commit(pool, term, commit_no, changes))

    async def expire(self, pool: str, before_ms: int, limit: int) -> int:
        write = self._writer.run
        jobs = await self.expired(pool, before_ms, limit)
        for job in jobs:
            while not await write(lambda connection, job=job: writes.expire_job(connection, job, before_ms)):
                pass
        for make in (writes.expire_events, writes.expire_keys):
            while not await write(lambda connection, make=make: make(connection, pool, before_ms)):
                pass
        return len(jobs)

    # --- what takes more than one statement -------------------------------------------------------
    async def reserve(self, wanted: Sequence[Reservation]) -> list[Reservation]:
        wanted = list(wanted)
        return await self._writer.run(lambda connection: writes.reserve(connection, wanted))

    async def seal_put(
        self, namespace: str, kind: str, name: str, data: bytes, user: str | None, at_ms: int
    ) -> int:
        values = (namespace, kind, name, data, user, at_ms)
        return await self._writer.run(lambda connection: writes.seal_put(connection, *values))

    async def audit_append(self, rows: Sequence[AuditRow]) -> None:
        rows = list(rows)
        await self._writer.run(lambda connection: writes.audit_append(connection, rows))

    async def delivery_add(self, pool: str, through: int, rows: Sequence[DeliveryRow]) -> None:
        rows = list(rows)
        await self._writer.run(lambda connection: writes.delivery_add(connection, pool, through, rows))
