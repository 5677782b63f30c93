"""Connections to the file, and what the driver's errors mean for a person."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from towline.errors import StoreError, Unstorable

_BUSY_TIMEOUT_S = 10.0
_PAGE_BYTES = 4096
_CACHE_KIB = 16 * 1024
_WAL_LIMIT_BYTES = 64 * 1024**2

_REMEDIES = {
    "SQLITE_FULL": "the disk is full: free some space; nothing of this change was written",
    "SQLITE_BUSY": "another process keeps it locked: look who has it open (fuser, lsof)",
    "SQLITE_READONLY": "it cannot be written: check its owner and mode, and whether the disk is read-only",
    "SQLITE_CANTOPEN": "it cannot be opened: check that its folder exists and is yours",
    "SQLITE_PERM": "access is refused: check its owner and mode",
    "SQLITE_NOTADB": "it is not a database: move it away, or use another TOWLINE_HOME",
    "SQLITE_CORRUPT": "it is damaged: restore it from a backup",
    "SQLITE_IOERR": "the disk refuses to read or write: see the kernel's log",
}
_UNSTORABLE = (OverflowError, UnicodeError, sqlite3.DataError, sqlite3.IntegrityError)
_UNBOUND = "Error binding parameter"
"""How the driver begins where a value is of no kind that it knows."""


def open_writer(path: Path) -> sqlite3.Connection:
    """For the one writer: every commit is on stable storage when it returns."""
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    try:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreError(
                f"{path}: this filesystem cannot share memory, which SQLite needs: use a local disk"
            )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA temp_store = MEMORY")  # pages as they were before a savepoint
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
        # The writer makes checkpoints itself when nobody waits; this one is for huge transactions.
        connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_LIMIT_BYTES // _PAGE_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Read-only; may be used by one thread after another."""
    return sqlite3.connect(
        f"{path.as_uri()}?mode=ro",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=64,
    )


def explain(path: Path, error: Exception) -> StoreError:
    """A sentence with the file's path and what to do."""
    if isinstance(error, _UNSTORABLE) or str(error).startswith(_UNBOUND):
        said = str(error).encode(errors="backslashreplace").decode()
        return Unstorable(f"{path}: it does not take a value of this: {said}")
    code = getattr(error, "sqlite_errorname", "")
    for name, remedy in _REMEDIES.items():
        if code == name or code.startswith(f"{name}_"):
            return StoreError(f"{path}: {remedy} ({error})")
    if isinstance(error, FileNotFoundError):
        return StoreError(f"{path}: {error.strerror}: make its folder first")
    return StoreError(f"{path}: {getattr(error, 'strerror', None) or error}")
