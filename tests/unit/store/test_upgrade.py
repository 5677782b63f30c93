"""Opening a database: made where there is none, brought up to date, refused where it is newer."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event
from sqlalchemy.pool import StaticPool

from towline.errors import StoreError
from towline.store import codec, schema, upgrade
from towline.store.migrations import REVISIONS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "100% state.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(path, isolation_level=None)
    yield opened
    opened.close()


def definitions(connection: sqlite3.Connection) -> dict[str, object]:
    """Each table's columns (a revision that adds one puts it last, with a default for the rows that are
    there), what makes it WITHOUT ROWID, and each index's text."""
    found: dict[str, object] = {}
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall():
        if kind == "table" and name != "alembic_version":
            columns = connection.execute(
                f"SELECT name, type, \"notnull\", pk FROM pragma_table_info('{name}')"
            )
            found[name] = sorted(columns.fetchall()), "WITHOUT ROWID" in sql
        elif sql is not None:
            found[name] = " ".join(sql.split())
    found.pop("alembic_version", None)
    return found


def test_the_revisions_make_the_schema(connection: sqlite3.Connection, path: Path) -> None:
    upgrade.prepare_sqlite(connection, path)
    engine = create_engine("sqlite://")
    with engine.connect() as plain:
        schema.metadata.create_all(plain)
        assert plain.connection.dbapi_connection is not None
        assert definitions(connection) == definitions(plain.connection.dbapi_connection)  # type: ignore[arg-type]
    engine.dispose()
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as migrated:
        assert compare_metadata(MigrationContext.configure(migrated), schema.metadata) == []
    engine.dispose()


def test_rows_of_the_first_version_are_kept(connection: sqlite3.Connection, path: Path) -> None:
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    with engine.begin() as opened:
        upgrade.migrate(opened, "0001")
        opened.exec_driver_sql(
            "INSERT INTO node VALUES ('n1', 'n1', 'i', 'ready', 1, 2, 3, x'7b7d', x'7b7d', 'default')"
        )
    upgrade.prepare_sqlite(connection, path)
    columns = ", ".join(codec.NODE.read)
    (row,) = connection.execute(f"SELECT {columns} FROM node").fetchall()
    node = codec.NODE.decode(row)
    assert (node.id, node.gpus, node.taints, node.protects, node.disk_bytes) == ("n1", (), (), {}, 0)


def test_the_revisions_are_named_in_order() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(upgrade.__file__).parent / "migrations"))
    found = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(found)) == REVISIONS


def test_a_second_time_nothing_is_done(connection: sqlite3.Connection, path: Path) -> None:
    upgrade.prepare_sqlite(connection, path)
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    upgrade.prepare_sqlite(connection, path)
    assert asked and all(statement.startswith("SELECT") for statement in asked)


def test_an_up_to_date_database_needs_no_alembic(connection: sqlite3.Connection, path: Path) -> None:
    upgrade.prepare_sqlite(connection, path)
    program = (
        "import asyncio, sys\n"
        "from towline.store.sqlite import SqliteStore\n"
        "async def main():\n"
        "    store = SqliteStore(sys.argv[1])\n"
        "    await store.open()\n"
        "    await store.raise_term('default')\n"
        "    await store.close()\n"
        "asyncio.run(main())\n"
        "sys.exit('alembic' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == 0


def test_a_newer_schema_is_refused(connection: sqlite3.Connection, path: Path) -> None:
    upgrade.prepare_sqlite(connection, path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    upgrade.prepare_sqlite(connection, path)  # which only adds, as long as it does not say otherwise
    connection.execute("INSERT INTO compatibility VALUES ('9999')")
    with pytest.raises(StoreError, match=r"state\.db was written by a newer Towline \(its schema is 9999"):
        upgrade.prepare_sqlite(connection, path)


def test_a_database_of_something_else_is_refused(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("CREATE TABLE songs (title)")
    with pytest.raises(StoreError, match=r"is a database, but not one of Towline's: move it away"):
        upgrade.prepare_sqlite(connection, path)
    assert list(definitions(connection)) == ["songs"]


def test_a_migration_that_fails_leaves_nothing(connection: sqlite3.Connection, path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}", connect_args={"isolation_level": None})

    @event.listens_for(engine, "begin")
    def begin(opened: object) -> None:
        opened.exec_driver_sql("BEGIN IMMEDIATE")  # type: ignore[attr-defined]

    with pytest.raises(RuntimeError), engine.begin() as opened:
        upgrade.migrate(opened)
        raise RuntimeError
    engine.dispose()
    assert definitions(connection) == {}
    upgrade.prepare_sqlite(connection, path)
    assert "attempt" in definitions(connection)


@pytest.mark.parametrize("layout", [layout for _, layout in codec.WRITTEN], ids=lambda layout: layout.table)
def test_rows_fill_their_tables(layout: codec.Layout) -> None:
    table = schema.metadata.tables[layout.table]
    assert layout.columns == tuple(column.name for column in table.columns)
    assert layout.key == tuple(column.name for column in table.primary_key)
    flags = {column.name for column in table.columns if column.type.python_type is bool}
    assert flags == {layout.read[place] for place in layout._flags}
