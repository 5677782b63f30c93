"""Backups of a store whose rows are large, and what else may stand in their place."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import msgspec
import pytest
from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing

from towline.errors import StoreError
from towline.store.moving import file as files
from towline.store.moving import moving, tables
from towline.store.moving.file import FORMAT, FileTarget, Header, Piece
from towline.store.sqlite import SqliteStore

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
