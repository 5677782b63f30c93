"""Where in the segments the pieces of an attempt are: one SQLite file beside them.

It can be made again from the segments, so a commit waits for no disk: what a crash of the machine takes
away is found again by ``Archive.open``, which reads what is not noted as sealed. All methods block, and may
be called from any thread; they raise OSError.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

_SCHEMA = """
CREATE TABLE IF NOT EXISTS piece (
    attempt TEXT, stream INTEGER, offset INTEGER, length INTEGER, ended INTEGER,
    segment INTEGER, position INTEGER, stored INTEGER,
    PRIMARY KEY (attempt, stream, offset, length, segment)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS piece_segment ON piece (segment);
CREATE TABLE IF NOT EXISTS sealed (segment INTEGER PRIMARY KEY, bytes INTEGER);
CREATE TABLE IF NOT EXISTS removed (attempt TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_KEYS = 5
"""A piece stands once a segment: two servers may have taken the same one, and each may lose its own."""
_STEP_ROWS = 10_000
PIECE_BYTES = 1024**2
"""No piece is as long as that: nodes ship parts of 128 KiB at most."""


class Extent(NamedTuple):
    """How much there is of stdout and stderr, and whether each is complete."""

    sizes: tuple[int, int]
    ended: tuple[bool, bool]

    @property
    def complete(self) -> bool:
        return all(self.ended)

    def longer(self, stream: int, count: int, end: bool) -> Extent:
        """With ``count`` bytes more of a stream, ``end`` being its last ones."""
        sizes, ended = list(self.sizes), list(self.ended)
        sizes[stream] += count
        ended[stream] = end
        return Extent((sizes[0], sizes[1]), (ended[0], ended[1]))


class Piece(NamedTuple):
    """``length`` bytes from ``offset`` on, in a frame of ``stored`` bytes at ``position``."""

    attempt: str
    stream: int
    offset: int
    length: int
    ended: bool
    segment: int
    position: int
    stored: int


@contextmanager
def _explained() -> Generator[None, None, None]:
    try:
        yield
    except sqlite3.Error as error:
        raise OSError(f"the index of the output that is kept: {error}") from error


class Index:
    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; {_SCHEMA}")
        if self._keys() != _KEYS:
            self._connection.close()
            raise sqlite3.DatabaseError("it is of an earlier version")

    def _keys(self) -> int:
        return len([row for row in self._connection.execute("PRAGMA table_info(piece)") if row[5]])

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock, _explained():
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection, None, None]:
        with self._lock, _explained():
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    # --- pieces -----------------------------------------------------------------------------------
    def add(self, pieces: Iterable[Piece]) -> None:
        with self._transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO piece VALUES (?,?,?,?,?,?,?,?)", pieces)

    def extent(self, attempt: str) -> Extent:
        """What there was up to now, also where its beginning has been removed."""
        sizes, ended = [0, 0], [False, False]
        for stream in (0, 1):
            for size, end in self._rows(
                "SELECT offset + length, ended FROM piece WHERE attempt = ? AND stream = ? "
                "ORDER BY offset DESC, length DESC, ended DESC LIMIT 1",
                attempt,
                stream,
            ):
                sizes[stream], ended[stream] = size, bool(end)
        return Extent((sizes[0], sizes[1]), (ended[0], ended[1]))

    def pieces(self, attempt: str, stream: int, offset: int, limit: int) -> list[Piece]:
        """Those that hold something from ``offset`` on, in order, at most ``limit``. Pieces that two servers
        have taken may overlap."""
        found = self._rows(
            "SELECT * FROM piece WHERE attempt = ? AND stream = ? AND offset > ? AND length > 0 "
            "AND offset + length > ? ORDER BY offset LIMIT ?",
            attempt,
            stream,
            offset - PIECE_BYTES,
            offset,
            limit,
        )
        return [Piece(*row) for row in found]

    # --- segments ---------------------------------------------------------------------------------
    def seal(self, segment: int, size: int) -> None:
        self._rows("INSERT OR REPLACE INTO sealed VALUES (?, ?)", segment, size)

    def sealed(self) -> dict[int, int]:
        """Bytes by segment, the oldest first."""
        return dict(self._rows("SELECT segment, bytes FROM sealed ORDER BY segment"))

    def attempts_in(self, segment: int) -> list[str]:
        rows = self._rows("SELECT DISTINCT attempt FROM piece WHERE segment = ?", segment)
        return sorted(row[0] for row in rows)

    def without_pieces(self) -> list[int]:
        """Sealed segments that hold nothing of any attempt any more."""
        rows = self._rows(
            "SELECT segment FROM sealed WHERE NOT EXISTS "
            "(SELECT 1 FROM piece WHERE piece.segment = sealed.segment) ORDER BY segment"
        )
        return [row[0] for row in rows]

    # --- what goes --------------------------------------------------------------------------------
    def drop_segment(self, segment: int) -> None:
        """Its pieces are no more; of their attempts it is noted that something was removed."""
        with self._transaction() as connection:
            for statement in (
                "INSERT OR IGNORE INTO removed SELECT DISTINCT attempt FROM piece WHERE segment = ?",
                "DELETE FROM piece WHERE segment = ?",
                "DELETE FROM sealed WHERE segment = ?",
            ):
                connection.execute(statement, (segment,))

    def drop_job(self, job: str) -> None:
        """In small steps, so that nobody waits for long."""
        bounds = (f"{job}-", f"{job}.")  # the character behind the hyphen: all ids of its attempts between
        for table, key in (("piece", "attempt, stream, offset, length"), ("removed", "attempt")):
            while self._rows(
                f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} "
                f"WHERE attempt > ? AND attempt < ? LIMIT {_STEP_ROWS}) RETURNING 1",
                *bounds,
            ):
                pass

    def lost_with(self, jobs: Sequence[str]) -> list[int]:
        """Sealed segments that hold nothing but what belongs to these jobs."""
        gone = set(jobs)
        return [
            segment
            for segment in self.sealed()
            if all(name.rsplit("-", 3)[0] in gone for name in self.attempts_in(segment))
        ]

    def was_removed(self, attempt: str) -> bool:
        return bool(self._rows("SELECT 1 FROM removed WHERE attempt = ?", attempt))
