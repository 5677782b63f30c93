"""Segments of many attempts: what is acknowledged can be read, whatever happened to process or disk."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from towline.logs.archive import Archive, Extent, Frame
from towline.logs.objects import Objects

A, B, C = "job1-0-0-1", "job1-0-1-1", "job2-0-0-1"


class Kept:
    """An archive in a folder, that can be left as a kill leaves it."""

    def __init__(self, folder: Path, objects: Objects | None = None) -> None:
        self.folder = folder
        self.objects = objects
        self.archive = self.open()

    def open(self, segment_bytes: int = 4_000) -> Archive:
        self.archive = Archive(self.folder, segment_bytes, self.objects)
        self.archive.open()
        return self.archive

    def append(self, *frames: Frame) -> list[Exception | None]:
        told: queue.Queue[Exception | None] = queue.Queue()
        for frame in frames:
            self.archive.append(frame, told.put)
        return [told.get(timeout=30) for _ in frames]

    def again(self) -> None:
        self.archive.close()
        self.open()

    def text(self, attempt: str, stream: int = 0) -> bytes:
        data = b""
        while piece := self.archive.read(attempt, stream, len(data), 100).data:
            data += piece
        return data

    def segments(self) -> list[Path]:
        return sorted(self.folder.glob("*.seg"))


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path / "output")
    yield made
    made.archive.close()


def frame(
    attempt: str, offset: int, data: bytes, *, stream: int = 0, end: bool = False, at: int = 0
) -> Frame:
    times = ((offset, at or 1_000 + offset, 0),) if data else ()
    return Frame(attempt, stream, offset, times, end, data)


def fill(kept: Kept, attempt: str, count: int) -> bytes:
    """Parts of 100 bytes, some in one group."""
    parts = [frame(attempt, 100 * at, bytes([65 + at % 26]) * 100) for at in range(count)]
    for at in range(0, count, 10):
        assert not any(kept.append(*parts[at : at + 10]))
    return b"".join(part.data for part in parts)


def test_what_is_acknowledged_can_be_read_with_its_times(kept: Kept) -> None:
    kept.append(
        frame(A, 0, b"one"), frame(B, 0, b"other"), frame(A, 3, b"two", at=7), frame(A, 0, b"e", stream=1)
    )
    assert kept.archive.read(A, 0, 0, 100) == (0, b"onetwo", ((0, 1_000), (3, 7)))
    assert kept.archive.read(A, 0, 1, 3) == (1, b"net", ((1, 1_000), (3, 7)))
    assert kept.archive.read(A, 0, 6, 9) == (6, b"", ())
    assert kept.text(A, 1) == b"e"
    assert kept.archive.last_at(A, 0) == 7
    assert kept.archive.extent(A) == Extent((6, 1), (False, False))
    assert kept.archive.extent(C) == Extent((0, 0), (False, False))


def test_only_what_follows_is_taken(kept: Kept) -> None:
    told = kept.append(
        frame(A, 0, b"one"), frame(A, 0, b"one"), frame(A, 5, b"far"), frame(A, 3, b"two", end=True)
    )
    assert [type(error) for error in told] == [type(None), ValueError, ValueError, type(None)]
    assert [type(error) for error in kept.append(frame(A, 6, b"more"))] == [ValueError], "it has ended"
    assert kept.text(A) == b"onetwo"


def test_the_end_of_a_stream_may_come_without_bytes(kept: Kept) -> None:
    kept.append(frame(A, 0, b"one"), frame(A, 3, b"", end=True), frame(A, 0, b"", stream=1, end=True))
    for _ in range(2):
        assert kept.archive.extent(A) == Extent((3, 0), (True, True))
        kept.again()


def test_it_goes_on_after_a_start_in_new_segments(kept: Kept) -> None:
    text = fill(kept, A, 100)
    assert len(kept.segments()) > 2
    kept.again()
    assert kept.append(frame(A, len(text), b"more")) == [None]
    assert kept.text(A) == text + b"more"


@pytest.mark.parametrize("cut", [1, 5, 40, 119])
def test_a_torn_end_is_cut_off(kept: Kept, cut: int) -> None:
    """The machine died while the last frame was being written: nobody was told that it is kept."""
    fill(kept, A, 3)
    kept.archive.close()
    (last,) = kept.segments()
    os.truncate(last, last.stat().st_size - cut)
    for name in kept.folder.glob("index*"):
        name.unlink()
    kept.open()
    assert kept.archive.extent(A).sizes == (200, 0)
    assert kept.archive.sealed() == {1: last.stat().st_size}
    assert kept.append(frame(A, 200, b"new")) == [None]
    assert kept.text(A) == b"A" * 100 + b"B" * 100 + b"new"


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"no database" * 1000)])
def test_the_index_is_made_again_from_the_segments(kept: Kept, damage: Callable[[Path], object]) -> None:
    text = fill(kept, A, 100)
    kept.append(frame(B, 0, b"b", end=True))
    kept.archive.close()
    damage(kept.folder / "index")
    kept.open()
    assert kept.text(A) == text
    assert kept.archive.extent(B) == Extent((1, 0), (True, False))


def test_bytes_that_have_changed_on_the_disk_are_not_shown(kept: Kept) -> None:
    fill(kept, A, 1)
    with kept.segments()[0].open("r+b") as file:
        file.seek(60)
        file.write(b"x")
    with pytest.raises(OSError, match="damaged at byte 0"):
        kept.text(A)


def test_a_full_disk_refuses_and_keeps_what_was_there(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(kept, A, 2)
    write = os.write

    def full(file: int, data: bytes) -> int:
        write(file, bytes(data)[:50])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    (error,) = kept.append(frame(A, 200, b"C" * 100))
    assert isinstance(error, OSError)
    monkeypatch.setattr(os, "write", write)
    assert kept.append(frame(A, 200, b"D" * 100)) == [None]
    assert kept.text(A) == b"A" * 100 + b"B" * 100 + b"D" * 100
    kept.again()
    assert kept.text(A) == b"A" * 100 + b"B" * 100 + b"D" * 100


def test_the_output_of_jobs_goes_with_them(kept: Kept) -> None:
    fill(kept, A, 60)
    fill(kept, C, 60)
    kept.again()
    before = {path.name for path in kept.segments()}
    alone = kept.archive.lost_with(["job1"])
    assert alone
    freed = kept.archive.drop_jobs(["job1"])
    gone = before - {path.name for path in kept.segments()}
    assert len(gone) == len(alone)
    assert freed > 3_000
    assert kept.text(A) == b""
    assert len(kept.text(C)) == 6_000
    assert not kept.archive.was_removed(A), "nobody asks for it any more"


def test_a_segment_is_removed_and_what_is_left_begins_later(kept: Kept) -> None:
    text = fill(kept, A, 100)
    kept.append(frame(B, 0, b"b"))
    first = next(iter(kept.archive.sealed()))
    assert kept.archive.attempts_in(first) == [A]
    assert kept.archive.drop_segment(first) > 3_000
    offset, data, _ = kept.archive.read(A, 0, 0, 50)
    assert 0 < offset < len(text)
    assert data == text[offset : offset + 50]
    assert kept.archive.extent(A).sizes == (len(text), 0)
    assert kept.archive.was_removed(A)
    assert not kept.archive.was_removed(B)
    assert kept.append(frame(A, len(text), b"more")) == [None]
