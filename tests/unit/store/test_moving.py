"""Backups of a store whose rows are large, and what else may stand in their place."""

from __future__ import annotations

import asyncio
import gzip
import os
from pathlib import Path

import msgspec
import pytest
from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing
from tests.small_disk import SmallDisk

from towline.cli.cluster import database
from towline.coordination.filelock import FileLease
from towline.errors import RequestError, StoreError
from towline.server.process.home import lease_path
from towline.store.moving import file as files
from towline.store.moving import moving, tables
from towline.store.moving.file import FORMAT, FileTarget, Header, Piece
from towline.store.moving.sqlite import SqliteTarget, set_acting
from towline.store.sqlite import SqliteStore
from towline.store.sqlite.connections import open_writer

LARGE = 100_000


def quiet(table: str, done: int, total: int) -> None: ...


@pytest.fixture
async def large(tmp_path: Path) -> Path:
    """A store with large rows among small ones."""
    store = SqliteStore(tmp_path / "state.db")
    await store.open()
    leader = await Writing.lead(store, "default")
    await leader.submit("j1", 1)
    texts = ["x" * LARGE if index % 3 == 0 else "y" for index in range(60)]
    await leader.commit(elements=[rows.element("j1", at, message=text) for at, text in enumerate(texts)])
    await store.close()
    return store.path


def pieces(path: Path) -> list[Piece]:
    data = gzip.decompress(path.read_bytes())
    found: list[bytes] = []
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        found.append(data[4:end])
        data = data[end:]
    return [msgspec.msgpack.decode(each, type=Piece) for each in found[1:]]


async def test_pieces_are_cut_by_bytes_too(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BYTES_A_PIECE", 3 * LARGE)
    await moving.backup(large, tmp_path / "b", quiet)
    found = [piece for piece in pieces(tmp_path / "b") if piece.table == "element"]
    assert sum(len(piece.rows) for piece in found) == 60
    assert len(found) > 6
    assert max(len(msgspec.msgpack.encode(piece)) for piece in found) < 4 * LARGE
    await moving.restore(tmp_path / "b", tmp_path / "home" / "state.db", quiet)
    await moving.raise_terms(tmp_path / "home" / "state.db")
    store = SqliteStore(tmp_path / "home" / "state.db")
    await store.open()
    assert [len(row.message or "") for row in (await store.elements("j1", 0, -1, 100)).elements] == [
        LARGE if index % 3 == 0 else 1 for index in range(60)
    ]
    await store.close()


async def test_a_row_that_no_backup_can_hold_is_said_before_it_is_written(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LONGEST_BYTES", LARGE)
    monkeypatch.setattr(tables, "BYTES_A_PIECE", LARGE // 2)
    with pytest.raises(
        StoreError, match=r"/b cannot be written: a row of table element takes 100\d{3} bytes"
    ):
        await moving.backup(large, tmp_path / "b", quiet)
    assert set(os.listdir(tmp_path)) & {"b", "b.new"} == set()  # noqa: PTH208


@pytest.mark.parametrize("linked", [True, False])
async def test_nothing_that_stands_in_the_place_of_a_draft_is_written(
    large: Path, tmp_path: Path, linked: bool
) -> None:
    """A link of somebody else's, or the draft of another backup that is under way."""
    other = tmp_path / "other"
    other.write_text("precious")
    draft = tmp_path / "b.new"
    if linked:
        draft.symlink_to(other)
    else:
        os.link(other, draft)
    with pytest.raises(StoreError, match=r"/b\.new is there already: another backup to this place"):
        await moving.backup(large, tmp_path / "b", quiet)
    assert other.read_text() == "precious"
    assert not (tmp_path / "b").exists()
    draft.unlink()
    await moving.backup(large, tmp_path / "b", quiet)


def test_the_second_of_two_backups_at_once_is_refused(tmp_path: Path) -> None:
    header = Header(format=FORMAT, revision="0001", made_at=0, origin="", shapes=[], counts={})
    first = FileTarget(tmp_path / "b", header)
    with pytest.raises(StoreError, match="is being written"):
        FileTarget(tmp_path / "b", header)
    first.finish()
    assert [piece.table for piece in pieces(tmp_path / "b")] == [""]
    assert not (tmp_path / "b.new").exists()


@pytest.mark.containers  # mounts a filesystem: needs the same rights
def test_a_backup_on_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    header = Header(format=FORMAT, revision="0001", made_at=0, origin="", shapes=[], counts={})
    with SmallDisk(tmp_path / "disk", "1m") as disk:
        target = FileTarget(disk.folder / "b", header)
        disk.fill()
        with pytest.raises(StoreError, match=r"/b cannot be written: No space left on device"):
            target.finish()
        target.close()
        assert not (disk.folder / "b.new").exists()
        assert not (disk.folder / "b").exists()
        FileTarget(disk.folder / "b", header).close()


async def test_a_store_that_was_made_while_a_backup_is_restored_stays(large: Path, tmp_path: Path) -> None:
    await moving.backup(large, tmp_path / "b", quiet)
    place = tmp_path / "home" / "state.db"
    server = SqliteStore(place)

    opened = asyncio.Event()

    async def meanwhile() -> None:
        await server.open()
        await server.raise_term("default")
        opened.set()

    class Waiting(SqliteTarget):
        async def finish(self, closed: str | None) -> None:
            await meanwhile()
            await super().finish(closed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moving, "SqliteTarget", Waiting)
        with pytest.raises(
            StoreError, match=r"state\.db was made while the backup was read: stop the server"
        ):
            await moving.restore(tmp_path / "b", place, quiet)
    assert opened.is_set()
    assert await server.raise_term("default") == 2
    await server.close()
    assert not (tmp_path / "home" / "state.db.new").exists()


async def test_nobody_leads_with_a_store_that_was_closed_after_he_opened_it(large: Path) -> None:
    server = SqliteStore(large)
    await server.open()
    term = await server.raise_term("default")
    connection = open_writer(large)
    set_acting(connection, "it was moved")
    with pytest.raises(StoreError, match="is closed: it was moved"):
        await server.raise_term("default")
    set_acting(connection, None)
    connection.close()
    assert await server.raise_term("default") > term + 1
    await server.close()


def test_a_restore_has_the_lock_of_a_home_that_is_not_there_yet(tmp_path: Path) -> None:
    place = tmp_path / "new" / "home" / "state.db"
    with database._unused(place, make=True):
        assert not FileLease(lease_path(place.parent)).try_acquire(), "a server could start here"
    server = FileLease(lease_path(place.parent))
    assert server.try_acquire()
    with (
        pytest.raises(RequestError, match=r"A server of .*/new/home runs: stop it first"),
        database._unused(place, make=True),
    ):
        pytest.fail("it has the lock too")
    server.release()
