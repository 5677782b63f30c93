"""Bring a database's schema to this build's revision, or refuse it with a sentence."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from towline.errors import StoreError
from towline.store.migrations import HEAD, REVISIONS

if TYPE_CHECKING:
    from sqlalchemy import Connection

_FOLDER = Path(__file__).parent / "migrations"


def prepare_sqlite(connection: sqlite3.Connection, path: Path) -> None:
    """Create or upgrade the schema of the SQLite database at ``path``, open as ``connection``
    outside of a transaction. Cheap where nothing is to be done. Raises StoreError."""
    found = _sqlite_revision(connection, path)
    if found == HEAD:
        return
    check_known(found, str(path))
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import StaticPool

    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)

    # The driver opens no transaction by itself here, so that schema changes stand inside it too.
    @event.listens_for(engine, "begin")
    def begin(opened: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        opened.exec_driver_sql("BEGIN IMMEDIATE")

    with engine.begin() as opened:
        migrate(opened)


def check_known(found: str | None, where: str) -> None:
    """Raise StoreError where revision ``found`` of the store at ``where`` is none of this build's."""
    if found is not None and found not in REVISIONS:
        raise StoreError(
            f"{where} was written by a newer Towline (its schema is {found}, this one knows up to {HEAD}): "
            "use that version, or another TOWLINE_HOME"
        )


def migrate(connection: Connection, revision: str = HEAD) -> None:
    """Run the missing revisions up to ``revision`` in the transaction that ``connection`` has open."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _sqlite_revision(connection: sqlite3.Connection, path: Path) -> str | None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "alembic_version" not in tables:
        if tables:
            raise StoreError(f"{path} is a database, but not one of Towline's: move it away")
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])
