"""The schema on PostgreSQL: made once, whoever starts; and builds of before go on with it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing
from tests.postgres import Postgres

from towline.errors import StoreError
from towline.store import codec, schema
from towline.store.access import EnrolmentRow
from towline.store.migrations import HEAD, REVISIONS
from towline.store.port import Store
from towline.store.postgresql import PostgresStore
from towline.store.sqlite import SqliteStore
from towline.store.upgrade import script

COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name
FROM information_schema.columns WHERE table_schema = current_schema() AND table_name <> 'alembic_version'
"""
KINDS = {"BIGINT": "bigint", "INTEGER": "integer", "TEXT": "text", "BOOLEAN": "boolean", "BLOB": "bytea"}


@pytest.fixture
async def connection(server: Postgres, tmp_path: Path) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(server.own(tmp_path))
    yield opened
    await opened.close()


async def test_servers_that_start_at_once_make_one_schema(server: Postgres, tmp_path: Path) -> None:
    stores = [PostgresStore(server.own(tmp_path)) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    terms = await asyncio.gather(*(store.raise_term("default") for store in stores))
    assert sorted(terms) == [1, 2, 3, 4, 5, 6]
    for store in stores:
        await store.close()


async def test_the_revisions_make_the_schema(connection: asyncpg.Connection) -> None:
    await connection.execute(script(None))
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for table, column, kind, nullable, _, collation in await connection.fetch(COLUMNS):
        found.setdefault(table, {})[column] = (kind, nullable)
        if getattr(schema.metadata.tables[table].c[column].type, "_variant_mapping", None):
            assert collation == "C", (table, column)
    assert found == {
        table.name: {
            column.name: (KINDS[str(column.type)], "YES" if column.nullable else "NO")
            for column in table.columns
        }
        for table in schema.metadata.tables.values()
    }
    indexes = {
        name
        for (name,) in await connection.fetch(
            "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()"
        )
    }
    wanted = {str(index.name) for table in schema.metadata.tables.values() for index in table.indexes}
    assert wanted <= indexes


async def test_revisions_only_add(connection: asyncpg.Connection) -> None:
    """What builds of before read and write is still there, and what is new needs no value of theirs. A
    revision that breaks this says so in the table ``compatibility``, and is named here."""
    before: dict[tuple[str, str], tuple[str, str]] = {}
    done: str | None = None
    for revision in REVISIONS:
        await connection.execute(script(done, revision))
        done = revision
        columns = {(row[0], row[1]): row for row in await connection.fetch(COLUMNS)}
        after = {key: (row[2], row[3]) for key, row in columns.items()}
        assert before.items() <= after.items(), revision
        old_tables = {table for table, _ in before}
        for key in after.keys() - before.keys():
            if key[0] in old_tables:
                nullable, default = columns[key][3:5]
                assert nullable == "YES" or default is not None, (revision, key)
        before = after


async def test_rows_of_the_first_version_are_kept(server: Postgres, tmp_path: Path) -> None:
    url = server.own(tmp_path)
    connection = await asyncpg.connect(url)
    await connection.execute(script(None, "0001"))
    await connection.execute(
        r"INSERT INTO node VALUES ('n1', 'n1', 'i', 'ready', 1, 2, 3, '\x7b7d', '\x7b7d', 'default')"
    )
    await connection.close()
    store = PostgresStore(url)
    await store.open()
    (node,) = await store.nodes("default")
    assert (node.id, node.gpus, node.taints, node.protects, node.disk_bytes) == ("n1", (), (), {}, 0)
    await store.close()


async def test_an_upgrade_lets_servers_pass_that_work_meanwhile(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody reads a table for long, which the upgrade has to change."""
    monkeypatch.setattr("towline.store.postgresql.upgrade.LOCK_MS", 50)
    monkeypatch.setattr("towline.store.postgresql.upgrade.PAUSE_S", 0.05)
    url = server.own(tmp_path)
    reader, writer = await asyncpg.connect(url), await asyncpg.connect(url)
    await reader.execute(script(None, "0004"))
    await reader.execute("BEGIN; SELECT * FROM node")
    store = PostgresStore(url)
    opening = asyncio.ensure_future(store.open())
    for _ in range(3):
        await asyncio.to_thread(server.until_waiting, 1)
        await writer.execute("DELETE FROM node")
    assert not opening.done()
    await reader.execute("COMMIT")
    await opening
    assert await store.nodes("default") == []
    await store.close()
    for other in (reader, writer):
        await other.close()


LATER = """
ALTER TABLE element ADD COLUMN mood TEXT DEFAULT 'calm' NOT NULL;
ALTER TABLE job ADD COLUMN colour TEXT;
CREATE TABLE song (title TEXT NOT NULL);
UPDATE alembic_version SET version_num = '9999';
"""
"""What a revision of a later version may do."""


@pytest.fixture(params=["sqlite", "postgresql"])
async def later(request: pytest.FixtureRequest, server: Postgres, tmp_path: Path) -> AsyncIterator[Store]:
    """A store that a later version has upgraded while this build's leader works on it."""
    store: Store
    if request.param == "sqlite":
        store = SqliteStore(tmp_path / "state.db")
    else:
        store = PostgresStore(server.own(tmp_path))
    await store.open()
    yield store
    await store.close()


async def change(store: Store, sql: str) -> None:
    if isinstance(store, SqliteStore):
        connection = sqlite3.connect(store.path)
        connection.executescript(sql)
        connection.close()
    else:
        assert isinstance(store, PostgresStore)
        other = await asyncpg.connect(store.address.url)
        await other.execute(sql)
        await other.close()


async def test_a_build_of_before_works_on_a_later_schema(later: Store) -> None:
    leader = await Writing.lead(later, "default")
    await leader.submit("j1", 1)
    await leader.commit(elements=[rows.element("j1", 0)])
    await change(later, LATER)
    await leader.commit(elements=[rows.element("j1", 1)], attempts=[rows.attempt("j1", 1)])
    again = type(later)(later.path if isinstance(later, SqliteStore) else later.address.url)  # type: ignore[attr-defined]
    await again.open()
    successor = await Writing.lead(again, "default")
    await successor.submit("j2", 2)
    snapshot, damaged = await again.load("default", successor.term)
    assert [row.id for row in snapshot.jobs] == ["j1", "j2"] and damaged == {}
    assert len(snapshot.elements) == 2
    await again.close()


BEFORE_POOLS = """
INSERT INTO enrolment (node, name, enrolled_at, expires_at) VALUES ('n1', 'n1', 1, 99), ('n2', 'n2', 1, 99)
  ON CONFLICT (node) DO UPDATE SET name = excluded.name, enrolled_at = excluded.enrolled_at,
  expires_at = excluded.expires_at;
INSERT INTO token (id, kind, name, role, namespace, digest, created_at, expires_at, used_at)
  VALUES ('t1', 'join', '', '', '*', '', 1, 2, NULL);
"""
"""What a server of the version before pools were added writes: a node's certificate was renewed, others are
new."""


async def test_what_servers_of_before_write_is_the_first_pools_or_stays(later: Store) -> None:
    await later.enrolment_put(EnrolmentRow(node="n1", name="n1", enrolled_at=1, expires_at=2, pool="gpu"))
    await change(later, BEFORE_POOLS)
    found = await later.enrolment_list()
    assert [(row.node, row.pool, row.expires_at) for row in found] == [
        ("n1", "gpu", 99),
        ("n2", "", 99),
    ]
    assert [row.pool for row in await later.token_list()] == [""]


async def test_a_later_schema_that_is_not_for_it_is_refused(later: Store) -> None:
    await change(later, LATER + "INSERT INTO compatibility (oldest) VALUES ('9999');")
    again = type(later)(later.path if isinstance(later, SqliteStore) else later.address.url)  # type: ignore[attr-defined]
    with pytest.raises(
        StoreError, match=rf"by a newer Towline \(its schema is 9999, this one knows up to {HEAD}\)"
    ):
        await again.open()
    await again.close()


async def test_a_database_of_something_else_is_refused(server: Postgres, tmp_path: Path) -> None:
    url = server.own(tmp_path)
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE songs (title TEXT)")
    await connection.close()
    with pytest.raises(StoreError, match=r"is a database of something else: make one for Towline alone"):
        await PostgresStore(url).open()


def test_every_layout_is_written_in_one_statement() -> None:
    from towline.store.postgresql.commit import _part

    for name, layout in codec.WRITTEN:
        sql, places = _part(name, 5)
        assert places == len(layout.columns)
        assert f"${5 + places}::" in sql and f"${6 + places}" not in sql
