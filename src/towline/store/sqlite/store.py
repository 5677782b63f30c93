"""The store in one SQLite file, for one server: WAL with full sync, one writer, a few readers."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from towline.core.rows import (
    AttemptRow,
    Changes,
    ElementRow,
    EventRow,
    JobRecord,
    JobRow,
    NodeRow,
    PoolSnapshot,
    SpecRow,
    TaskRow,
)
from towline.errors import StoreError
from towline.store.codec import Damaged
from towline.store.coordination.sqlite import SqliteCoordination
from towline.store.delivery.sqlite import SqliteDeliveries
from towline.store.port import ElementPage, Reservation, Sealed
from towline.store.sqlite import loading, reads, writes
from towline.store.sqlite.access import SqliteAccess
from towline.store.sqlite.connections import explain, open_reader, open_writer
from towline.store.sqlite.record import record
from towline.store.sqlite.writer import Writer
from towline.store.upgrade import prepare_sqlite

T = TypeVar("T")

_READERS = 4


class SqliteStore(SqliteAccess, SqliteCoordination, SqliteDeliveries):
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

    async def _read(self, work: Callable[..., T], *args: Any) -> T:
        if self._closed:
            raise StoreError("the store is closed")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._in_snapshot, work, args)

    def _in_snapshot(self, work: Callable[..., T], args: tuple[Any, ...]) -> T:
        try:
            connection = self._reader()
            connection.execute("BEGIN")
            try:
                return work(connection, *args)
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

    # --- the leader -------------------------------------------------------------------------------
    async def raise_term(self, pool: str) -> int:
        return await self._writer.run(lambda connection: writes.raise_term(connection, pool))

    async def load(self, pool: str, term: int) -> tuple[PoolSnapshot, dict[str, str]]:
        return await self._read(loading.load, pool, term)

    async def commit(self, pool: str, term: int, commit_no: int, changes: Changes) -> None:
        await self._writer.run(writes.commit(pool, term, commit_no, changes))

    async def expired(self, pool: str, before_ms: int, limit: int) -> list[str]:
        return await self._read(writes.expired_jobs, pool, before_ms, limit)

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

    # --- idempotency keys -------------------------------------------------------------------------
    async def reserve(self, wanted: Sequence[Reservation]) -> list[Reservation]:
        wanted = list(wanted)
        return await self._writer.run(lambda connection: writes.reserve(connection, wanted))

    async def release(self, namespace: str, key: str) -> None:
        await self._writer.run(lambda connection: writes.release(connection, namespace, key))

    async def answer(self, namespace: str, key: str, error: str) -> None:
        await self._writer.run(lambda connection: writes.answer(connection, namespace, key, error))

    # --- what is kept encrypted -------------------------------------------------------------------
    async def seal_put(
        self, namespace: str, kind: str, name: str, data: bytes, user: str | None, at_ms: int
    ) -> int:
        values = (namespace, kind, name, data, user, at_ms)
        return await self._writer.run(lambda connection: writes.seal_put(connection, *values))

    async def seal_get(self, namespace: str, kind: str, name: str) -> Sealed | None:
        return await self._read(reads.seal_get, namespace, kind, name)

    async def seal_list(self, namespace: str | None = None, kind: str | None = None) -> list[Sealed]:
        return await self._read(reads.seal_list, namespace, kind)

    async def seal_delete(self, namespace: str, kind: str, name: str) -> bool:
        return await self._writer.run(
            lambda connection: writes.seal_delete(connection, namespace, kind, name)
        )

    # --- facts ------------------------------------------------------------------------------------
    async def find_jobs(self, namespace: str, argument: str) -> list[JobRow]:
        return await self._read(reads.find_jobs, namespace, argument)

    async def jobs(
        self, namespace: str, before_seq: int | None, limit: int, states: Sequence[str] = ()
    ) -> list[JobRow]:
        return await self._read(reads.jobs, namespace, before_seq, limit, tuple(states))

    async def job(self, job: str) -> tuple[JobRow, SpecRow] | None:
        return await self._read(reads.job, job)

    async def record(self, pool: str, job: str, namespace: str, key: str | None) -> JobRecord | None:
        return await self._read(record, pool, job, namespace, key)

    async def tasks(self, job: str) -> list[TaskRow]:
        return await self._read(reads.tasks, job)

    async def elements(self, job: str, task: int, after: int, through: int) -> ElementPage:
        return await self._read(reads.elements, job, task, after, through)

    async def first_failure(self, job: str) -> ElementRow | None:
        return await self._read(reads.first_failure, job)

    async def attempt(self, job: str, task: int, index: int, number: int) -> AttemptRow | None:
        return await self._read(reads.attempt, job, task, index, number)

    async def nodes(self, pool: str) -> list[NodeRow]:
        return await self._read(reads.nodes, pool)

    async def events(self, stream: str, after: int, limit: int, job: str | None = None) -> list[EventRow]:
        return await self._read(reads.events, stream, after, limit, job)

    async def counters(self, pool: str) -> tuple[int, int]:
        term, _, event_no, _ = await self._read(reads.counters, pool)
        return term, event_no
