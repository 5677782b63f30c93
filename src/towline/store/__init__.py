"""What is kept: the port, and the stores behind it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from towline.store.port import Store

FILE = "state.db"
"""Of a store on SQLite, in the server's home."""


def make_store(url: str, home: Path) -> Store:
    """The store at ``url`` (``postgresql://…``), or where that is empty the one in the home's file; not
    opened yet. Each brings its own libraries, which are imported here. Raises WrongSetting."""
    if url:
        from towline.store.postgresql import PostgresStore

        return PostgresStore(url)
    from towline.store.sqlite import SqliteStore

    return SqliteStore(home / FILE)
