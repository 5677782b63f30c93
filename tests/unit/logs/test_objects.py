"""The object store, in a folder and behind obstore's other stores."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from towline.errors import OperatorError, StoreError
from towline.logs.objects import Objects, open_objects


@pytest.fixture(params=["folder", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    return open_objects("", tmp_path) if request.param == "folder" else Objects(MemoryStore())


def test_what_is_put_is_there_whole_or_in_part(objects: Objects) -> None:
    objects.put("a/b/c", b"0123456789")
    assert objects.get("a/b/c") == b"0123456789"
    assert objects.get("a/b/c", 3, 4) == b"3456"
    assert objects.get("a/b/c", 8, 100) == b"89"
    assert objects.get("a/b/c", 3, 0) == b""
    objects.put("a/b/c", b"new")
    assert objects.get("a/b/c") == b"new"


def test_what_is_not_there_is_nothing(objects: Objects) -> None:
    assert objects.get("a/b") is None
    assert objects.get("a/b", 1, 2) is None
    assert objects.sizes("a/") == {}
    objects.remove("a/")


def test_a_prefix_is_listed_and_removed_alone(objects: Objects) -> None:
    for key in ("a/1/x", "a/1/y", "a/10/x", "a/2"):
        objects.put(key, key.encode())
    assert objects.sizes("a/1/") == {"a/1/x": 5, "a/1/y": 5}
    objects.remove("a/1/")
    assert objects.sizes("a/") == {"a/10/x": 6, "a/2": 3}


def test_a_file_is_synced_with_the_folders_that_are_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())))
    open_objects("", tmp_path).put("a/b", b"x")
    top = tmp_path / "objects"
    assert synced == [str(top / "a/b"), str(top / "a"), str(top)]


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        open_objects("", tmp_path).put("a/b", b"x")


def test_what_is_in_the_way_of_a_folder_is_a_failure(tmp_path: Path) -> None:
    objects = open_objects("", tmp_path)
    (tmp_path / "objects" / "a").write_text("")
    with pytest.raises(StoreError, match="the object store fails"):
        objects.put("a/b", b"x")


def test_a_file_url_is_a_folder_and_others_are_no_store(tmp_path: Path) -> None:
    open_objects(f"file://{tmp_path}/here", tmp_path).put("k", b"x")
    assert (tmp_path / "here/k").read_bytes() == b"x"
    with pytest.raises(OperatorError, match="object_store is 'what://x'"):
        open_objects("what://x", tmp_path)
