"""What is kept: the port, and the stores behind it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from towline.core.leadership import LEASE_MS

if TYPE_CHECKING:
    from towline.store.port import Store

FILE = "state.db"
"""Of a store on SQLite, in the server's home."""


def make_store(url: str, home: Path, lease_ms: int = LEASE_MS) -> Store:
    """The store at ``url`` (``postgresql://…``), or where that is empty the one in the home's file; not
    opened yet. Each brings its own libraries, which are imported here. ``lease_ms`` is how long a server's
    leases last. Raises WrongSetting."""
    if url:
        from towline.store.postgresql import PostgresStore

        return PostgresStore(url, lease_ms)
    from towline.store.sqlite import SqliteStore

    return SqliteStore(home / FILE)
