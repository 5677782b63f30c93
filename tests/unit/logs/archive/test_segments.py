"""Segments that are full lie in the object store, and are read there as they were in the folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.logs.archive.test_archive import A, C, Kept, fill, frame

from towline.errors import StoreError
from towline.logs.archive import segments
from towline.logs.objects import Objects, open_objects


class Told(Objects):
    """Tells when a segment has come. ``away``: it fails for a while, as a bucket may."""

    def __init__(self, *of: Any) -> None:
        super().__init__(*of)
        self.away = False
        self.came = threading.Condition()

    def adopt(self, file: Path, key: str) -> None:
        self._look()
        super().adopt(file, key)
        with self.came:
            self.came.notify_all()

    def sizes(self, prefix: str) -> dict[str, int]:
        self._look()
        return super().sizes(prefix)

    def _look(self) -> None:
        if self.away:
            raise StoreError("the object store fails: it is away")


def until(kept: Kept, count: int) -> None:
    """Until so many segments are in the folder still."""
    objects = kept.objects
    assert isinstance(objects, Told)
    with objects.came:
        assert objects.came.wait_for(lambda: len(kept.segments()) == count, 30), kept.segments()


def bucket(folder: Path) -> Told:
    """As a bucket is: files are written into it, and not moved."""
    return Told(open_objects("", folder)._store)


@pytest.fixture(params=["folder", "bucket"])
def kept(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Kept]:
    objects = bucket(tmp_path)
    if request.param == "folder":
        objects = Told(objects._store, tmp_path / "objects")
    made = Kept(tmp_path / "output", objects)
    yield made
    made.archive.close()


def objects_of(kept: Kept) -> list[str]:
    assert kept.objects is not None
    return sorted(kept.objects.sizes(segments.PREFIX))


def test_what_is_full_leaves_the_folder_and_is_read_as_before(kept: Kept) -> None:
    text = fill(kept, A, 100)
    until(kept, 1)
    assert len(objects_of(kept)) >= 2
    assert kept.text(A) == text
    kept.again()
    assert kept.text(A) == text
    assert not any(kept.append(frame(A, len(text), b"more")))
    assert kept.text(A) == text + b"more"


def test_a_new_index_knows_what_is_in_the_object_store(kept: Kept) -> None:
    text = fill(kept, A, 100)
    until(kept, 1)
    kept.archive.close()
    for file in kept.folder.glob("index*"):
        file.unlink()
    kept.open()
    assert kept.text(A) == text
    assert len(set(objects_of(kept)) & {f"output/{path.name}" for path in kept.segments()}) == 0


def test_what_expires_leaves_the_object_store(kept: Kept) -> None:
    fill(kept, A, 100)
    text = fill(kept, C, 100)
    kept.again()
    until(kept, 0)
    before = kept.archive.kept_bytes()
    freed = kept.archive.drop_jobs(["job1"])
    assert freed > 8_000
    assert kept.archive.kept_bytes() == before - freed
    assert kept.text(C) == text
    kept.again()
    assert kept.text(A) == b""
    assert kept.text(C) == text


def test_one_that_was_moved_when_its_server_died_is_there(kept: Kept) -> None:
    """Moved, and nobody had noted anything of it."""
    text = fill(kept, A, 20)
    kept.archive.close()
    assert kept.objects is not None
    for path in kept.segments():
        kept.objects.adopt(path, f"{segments.PREFIX}{path.name}")
    kept.open()
    assert kept.text(A) == text


def test_one_that_was_removed_by_somebody_is_forgotten(kept: Kept) -> None:
    fill(kept, A, 100)
    until(kept, 1)
    kept.archive.close()
    assert kept.objects is not None
    kept.objects.delete(objects_of(kept)[0])
    kept.open()
    assert kept.archive.was_removed(A)
    assert kept.archive.read(A, 0, 0, 100).offset > 0


def test_while_the_object_store_is_away_output_stays_and_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "AGAIN_S", 0.01)
    objects = bucket(tmp_path)
    kept = Kept(tmp_path / "output", objects)
    try:
        objects.away = True
        text = fill(kept, A, 100)
        assert len(kept.segments()) >= 3
        assert kept.text(A) == text
        objects.away = False
        until(kept, 1)
        assert kept.text(A) == text
        objects.away = True
        kept.again()  # a server starts without its object store, too
        objects.away = False
        assert kept.text(A) == text
    finally:
        kept.archive.close()
