"""The one thread that writes: all writers of the process hand it their work and wait for the commit.

What has queued up while the last transaction was being synced goes into the next one together, so
fifty callers at once cost two or three syncs, not fifty. Each of several pieces of work stands in a
savepoint: one that is refused takes nothing of the others with it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from towline.errors import StoreError, TowlineError, Unstorable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_MOST_TOGETHER = 256
_CHECKPOINT_AFTER_ROWS = 20_000


class _Item:
    """One caller's work, and how to tell it the outcome."""

    __slots__ = ("_failure", "_future", "_loop", "_result", "work")

    def __init__(self, work: Work[Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self._future = future
        self._loop = future.get_loop()
        self._result: Any = None
        self._failure: BaseException | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        self._result = self.work(connection)

    def fail(self, failure: BaseException) -> None:
        self._failure = failure

    def tell(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._settle)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    def _settle(self) -> None:
        if self._future.done():
            return  # the caller was cancelled; what it asked for has happened or not all the same
        if self._failure is not None:
            self._future.set_exception(self._failure)
        else:
            self._future.set_result(self._result)


class Writer:
    """``connect`` opens the connection in the thread; ``explain`` turns a driver's error to a StoreError."""

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], explain: Callable[[Exception], StoreError]
    ) -> None:
        self._connect = connect
        self._explain = explain
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="store-writer", daemon=True)
        self._closed = False

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Finish what was handed over, then close the connection."""
        self._closed = True
        if not self._thread.is_alive():
            return
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def run(self, work: Work[T]) -> T:
        """Do ``work`` in a transaction; its result once that is on stable storage.
        Raises what ``work`` raises, and StoreError; then nothing of it was written, unless the
        failure was the sync's own: then nobody knows, as after a crash."""
        if self._closed:
            raise StoreError("the store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(_Item(work, future))
        return await future

    def _serve(self) -> None:
        connection: sqlite3.Connection | None = None
        changes_at_checkpoint = 0
        while items := self._take():
            try:
                connection = connection or self._connect()
                _transact(connection, items, self._refusal)
            except Exception as error:
                failure = self._failure(error)
                for item in items:
                    item.fail(failure)
                _drop(connection)
                connection, changes_at_checkpoint = None, 0
            for item in items:
                item.tell()
            # After the answers, so that no caller waits for it.
            if connection and connection.total_changes - changes_at_checkpoint > _CHECKPOINT_AFTER_ROWS:
                changes_at_checkpoint = connection.total_changes
                with suppress(sqlite3.Error):  # nothing is lost: the next commit says what is wrong
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        _drop(connection)

    def _failure(self, error: Exception) -> Exception:
        expected = isinstance(error, sqlite3.Error | OSError | OverflowError | UnicodeError)
        return self._explain(error) if expected else error

    def _refusal(self, error: Exception) -> TowlineError | None:
        """What one caller is told and the others are not, since it is about his own work; None: all are."""
        if isinstance(error, TowlineError):
            return error
        failure = self._failure(error)
        return failure if isinstance(failure, Unstorable) else None

    def _take(self) -> list[_Item]:
        """What waits, at least one; nothing at the end."""
        items: list[_Item] = []
        item = self._queue.get()
        while item is not None:
            items.append(item)
            if len(items) == _MOST_TOGETHER:
                return items
            try:
                item = self._queue.get_nowait()
            except Empty:
                return items
        if items:
            self._queue.put(None)
        return items


Refusal = Callable[[Exception], TowlineError | None]


def _transact(connection: sqlite3.Connection, items: list[_Item], refusal: Refusal) -> None:
    if len(items) == 1:
        _transact_alone(connection, items[0], refusal)
        return
    connection.execute("BEGIN IMMEDIATE")
    for item in items:
        connection.execute("SAVEPOINT item")
        try:
            item.run(connection)
        except Exception as error:
            if (refused := refusal(error)) is None:
                raise
            connection.execute("ROLLBACK TO item")
            item.fail(refused)
        connection.execute("RELEASE item")
    connection.execute("COMMIT")


def _transact_alone(connection: sqlite3.Connection, item: _Item, refusal: Refusal) -> None:
    """Without a savepoint, for which SQLite copies every page that changes."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        item.run(connection)
    except Exception as error:
        if (refused := refusal(error)) is None:
            raise
        connection.execute("ROLLBACK")
        item.fail(refused)
        return
    connection.execute("COMMIT")


def _drop(connection: sqlite3.Connection | None) -> None:
    """Close, which rolls back. A new connection then starts from what the file says."""
    if connection is not None:
        connection.close()
