"""A SQLite file as an end."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from towline.core.leadership import LEADERS_BITS
from towline.errors import StoreError
from towline.store.migrations import HEAD
from towline.store.moving.tables import Row, Shape, in_pieces, shapes
from towline.store.sqlite.connections import explain, open_reader, open_writer
from towline.store.upgrade import CLOSED, check_known, check_open, sqlite_revision, upgrade_sqlite

_RAISE = f"UPDATE pool SET term = max((term >> {LEADERS_BITS}) + 1, ?) << {LEADERS_BITS}"


_BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a file, and would take for a new file's own."""


@contextmanager
def explained(path: Path) -> Generator[None]:
    """Errors of the driver as StoreError."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise explain(path, error) from error


class SqliteSource:
    """A file that is only read, in one snapshot. Raises StoreError where it is none of Towline's, or not up
    to date."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.shapes = shapes()
        with explained(self.path):
            self._connection = open_reader(self.path)
            self._connection.execute("BEGIN")
            found = sqlite_revision(self._connection, self.path)
        self.revision = checked_revision(found, str(self.path))

    def close(self) -> None:
        self._connection.close()

    def check_open(self) -> None:
        """Raises StoreError where no server may act on it."""
        with explained(self.path):
            (reason,) = self._connection.execute(CLOSED).fetchone()
        check_open(reason, str(self.path))

    async def count(self, shape: Shape) -> int:
        with explained(self.path):
            return _count(self._connection, shape)

    async def rows(self, shape: Shape) -> AsyncIterator[list[Row]]:
        with explained(self.path):
            cursor = self._connection.execute(
                f"SELECT {listed(shape.columns)} FROM {listed([shape.name])} ORDER BY {listed(shape.key)}"
            )
            for piece in in_pieces(cursor):
                yield _with_flags(shape, piece)


def _with_flags(shape: Shape, rows: list[Row]) -> list[Row]:
    flags = shape.flags
    if not flags:
        return rows
    return [tuple(bool(cell) if at in flags else cell for at, cell in enumerate(row)) for row in rows]


def checked_revision(found: str | None, where: str) -> str:
    """Raises StoreError unless it is this build's."""
    check_known(found, where)
    if found is None:
        raise StoreError(f"{where} is empty: there is nothing to take from it")
    if found != HEAD:
        raise StoreError(f"{where} has the schema {found}, this version {HEAD}: run tow db upgrade first")
    return found


class SqliteTarget:
    """A new file: written beside its place, and put there whole."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._draft = self.path.with_name(f"{self.path.name}.new")
        self._connection: sqlite3.Connection | None = None

    @property
    def _open(self) -> sqlite3.Connection:
        assert self._connection is not None, "begin comes first"
        return self._connection

    async def begin(self, revision: str) -> None:
        for path in (self.path, *(Path(f"{self.path}{end}") for end in _BESIDE)):
            if path.exists():
                raise StoreError(f"{path} is there already: move it away first")
        with explained(self._draft):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._draft.unlink(missing_ok=True)
            self._draft.touch(mode=0o600, exist_ok=False)
            self._connection = open_writer(self._draft)
            upgrade_sqlite(self._connection, revision)
            self._connection.execute("BEGIN IMMEDIATE")

    async def write(self, shape: Shape, rows: list[Row]) -> None:
        places = ", ".join("?" for _ in shape.columns)
        with explained(self._draft):
            self._open.executemany(
                f"INSERT INTO {listed([shape.name])} ({listed(shape.columns)}) VALUES ({places})", rows
            )

    async def count(self, shape: Shape) -> int:
        with explained(self._draft):
            return _count(self._open, shape)

    async def finish(self, closed: str | None) -> None:
        with explained(self._draft):
            self._open.execute("COMMIT")
            if sqlite_revision(self._open, self._draft) != HEAD:
                upgrade_sqlite(self._open)
            set_acting(self._open, closed)
            self._open.close()
            self._connection = None
            self._put_in_place()
            sync_folder(self.path.parent)

    def _put_in_place(self) -> None:
        """Never over a file that somebody has made there meanwhile, such as a server its empty one."""
        try:
            os.link(self._draft, self.path)
        except FileExistsError:
            raise StoreError(
                f"{self.path} was made while the backup was read: stop the server that uses it, and move it "
                "away"
            ) from None
        finally:
            self._draft.unlink()

    def close(self) -> None:
        """Without ``finish`` nothing is kept."""
        if self._connection is not None:
            self._connection.close()
            self._draft.unlink(missing_ok=True)


def set_acting(connection: sqlite3.Connection, closed: str | None, *, raised: bool = False) -> None:
    """Let the store be closed for this reason or, with None, be open in the next term; ``raised``: as
    ``core.leadership.raised`` says."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM closure")
    if raised:
        connection.execute(_RAISE, (int(time.time()),))
    elif closed is None:
        connection.execute("UPDATE pool SET term = term + 1")
    else:
        connection.execute(
            "INSERT INTO closure (reason, at) VALUES (?, ?)", (closed, time.time_ns() // 10**6)
        )
    connection.execute("COMMIT")


def sync_folder(folder: Path) -> None:
    """Make the names in it durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def listed(names: Sequence[str]) -> str:
    """Names for a statement."""
    return ", ".join(f'"{name}"' for name in names)


def _count(connection: sqlite3.Connection, shape: Shape) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {listed([shape.name])}").fetchone()[0])
