"""A full disk: an error that names the file, nothing by halves, and it goes on once there is room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.stores.rows import Writing
from tests.small_disk import SmallDisk

from towline.errors import StoreError
from towline.store.sqlite import SqliteStore

DISK_BYTES = 2 * 1024**2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "disk", str(DISK_BYTES)) as disk:
        yield disk


@pytest.mark.containers  # mounts a filesystem: needs the same rights
async def test_a_full_disk_stops_commits_until_there_is_room(small_disk: SmallDisk) -> None:
    small_disk.fill(but_bytes=DISK_BYTES // 2)
    path = small_disk.folder / "state.db"
    store = SqliteStore(path)
    await store.open()
    leader = await Writing.lead(store, "default")
    await leader.submit("j1", 1)
    written, refused, failure = await leader.fill("j1")
    assert str(failure).startswith(f"{path}: the disk is full: free some space")

    assert len((await store.elements("j1", 0, -1, 10**6)).elements) == written
    with pytest.raises(StoreError, match="the disk is full"):
        await leader.commit(elements=refused)
    small_disk.free()
    await leader.commit(elements=refused)
    assert len((await store.elements("j1", 0, -1, 10**6)).elements) == written + len(refused)
    await store.close()


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "nowhere" / "state.db")
    with pytest.raises(StoreError, match=r"nowhere/state\.db: No such file or directory: make its folder"):
        await store.open()
    await store.close()


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_text("this is a letter\n" * 100)
    with pytest.raises(StoreError, match=r"state\.db: it is not a database: move it away"):
        await SqliteStore(path).open()
    assert path.read_text().startswith("this is a letter")
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match=r"state\.db: Is a directory"):
        await SqliteStore(path).open()
