"""Bring a database's schema to this build's revision, or refuse it with a sentence."""

from __future__ import annotations

import io
import sqlite3
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from towline.errors import StoreError, WrongStore
from towline.store.migrations import HEAD, REVISIONS

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

CLOSED = "SELECT max(reason) FROM closure"
"""Why nobody may act with a store; nothing where all may."""
_FOLDER = Path(__file__).parent / "migrations"


def prepare_sqlite(connection: sqlite3.Connection, path: Path) -> None:
    """Create or upgrade the schema of the SQLite database at ``path``, open as ``connection``
    outside of a transaction. Cheap where nothing is to be done. Raises StoreError."""
    found = sqlite_revision(connection, path)
    check_known(found, str(path), _sqlite_oldest(connection))
    if found is None or found < HEAD:
        upgrade_sqlite(connection)
    closed = connection.execute(CLOSED).fetchone()
    check_open(closed[0], str(path))


def upgrade_sqlite(connection: sqlite3.Connection, revision: str = HEAD) -> None:
    """Run the missing revisions up to ``revision`` in a transaction of its own."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import StaticPool

    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)

    # The driver opens no transaction by itself here, so that schema changes stand inside it too.
    @event.listens_for(engine, "begin")
    def begin(opened: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        opened.exec_driver_sql("BEGIN IMMEDIATE")

    with engine.begin() as opened:
        migrate(opened, revision)


def check_known(found: str | None, where: str, oldest: str | None = None) -> None:
    """Raise StoreError where revision ``found`` of the store at ``where`` is none of this build's, unless it
    says that builds from ``oldest`` on may use it too."""
    if found is None or found in REVISIONS or (oldest is not None and oldest <= HEAD):
        return
    raise WrongStore(
        f"{where} was written by a newer Towline (its schema is {found}, this one knows up to {HEAD}): "
        "use that version, or another store"
    )


def check_open(reason: str | None, where: str) -> None:
    """Raise StoreError where the store at ``where`` was closed for this reason."""
    if reason is not None:
        raise StoreError(f"{where} is closed: {reason}")


def migrate(connection: Connection, revision: str = HEAD) -> None:
    """Run the missing revisions up to ``revision`` in the transaction that ``connection`` has open."""
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


@cache
def script(found: str | None, revision: str = HEAD) -> str:
    """The revisions behind ``found`` (None: from nothing on) up to ``revision`` as SQL for PostgreSQL."""
    from alembic import command

    config = _config()
    config.attributes["script"] = buffer = io.StringIO()
    command.upgrade(config, f"{found or 'base'}:{revision}", sql=True)
    return buffer.getvalue()


def _config() -> Config:
    from alembic.config import Config

    config = Config(output_buffer=io.StringIO())
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    return config


def sqlite_revision(connection: sqlite3.Connection, path: Path) -> str | None:
    """The schema's revision; None where there is none yet. Raises StoreError."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "alembic_version" not in tables:
        if tables:
            raise StoreError(f"{path} is a database, but not one of Towline's: move it away")
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def _sqlite_oldest(connection: sqlite3.Connection) -> str | None:
    """The oldest revision whose builds may use the schema; None where none but its own may."""
    told = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'compatibility'").fetchone()
    return connection.execute("SELECT max(oldest) FROM compatibility").fetchone()[0] if told else None
