"""Archives of several servers on one object store: what one has kept the others find, and no number is used
by two."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.logs.archive.test_archive import Kept, frame

from towline.logs.archive import Archive, Extent
from towline.logs.objects import Objects, open_objects

A, B = "job1-0-0-1", "job1-0-1-1"


class Shared(Kept):
    def open(self, segment_bytes: int = 4_000) -> Archive:
        self.archive = Archive(self.folder, segment_bytes, self.objects, shared=True, seal_s=0.05)
        self.archive.open()
        return self.archive

    def wait_until_away(self) -> None:
        away = threading.Event()
        self.archive.when_away(away.set)
        assert away.wait(30)


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return open_objects(f"file://{tmp_path}/objects", tmp_path)


@pytest.fixture
def pair(tmp_path: Path, objects: Objects) -> Iterator[tuple[Shared, Shared]]:
    made = Shared(tmp_path / "one", objects), Shared(tmp_path / "two", objects)
    yield made
    for each in made:
        each.archive.close()


def test_what_one_server_has_sealed_is_read_at_another(pair: tuple[Shared, Shared]) -> None:
    one, two = pair
    assert one.append(frame(A, 0, b"hello "), frame(A, 6, b"world", end=True)) == [None, None]
    two.archive.catch_up()
    assert two.text(A) == b""
    one.wait_until_away()
    two.archive.catch_up()
    assert two.text(A) == b"hello world"
    assert two.archive.extent(A) == one.archive.extent(A) == Extent((11, 0), (True, False))


def test_nothing_is_called_away_that_is_still_in_a_folder(pair: tuple[Shared, Shared]) -> None:
    one, _ = pair
    one.wait_until_away()  # there is nothing yet
    one.append(frame(A, 0, b"x"))
    assert one.segments()
    one.wait_until_away()
    assert one.segments() == []


def test_both_go_on_after_each_other_and_use_no_number_twice(pair: tuple[Shared, Shared]) -> None:
    one, two = pair
    for turn in range(3):
        for each in pair:
            each.archive.catch_up()
            before = each.archive.extent(A).sizes[0]
            assert each.append(frame(A, before, f"{turn};".encode()), frame(B, before, b"b;")) == [None, None]
            each.wait_until_away()
    one.archive.catch_up()
    assert one.text(A) == two.text(A) == b"0;0;1;1;2;2;"
    assert one.archive.sealed() == two.archive.sealed()
    assert len(one.archive.sealed()) == 6


def test_a_node_ships_again_what_a_dead_server_has_not_sealed(pair: tuple[Shared, Shared]) -> None:
    """It still has it; and what both servers have comes once."""
    one, two = pair
    one.append(frame(A, 0, b"first;"))
    one.wait_until_away()
    one.append(frame(A, 6, b"second;"))
    two.archive.catch_up()
    assert two.archive.extent(A).sizes == (6, 0)
    assert two.append(frame(A, 6, b"second;third", end=True)) == [None]
    one.wait_until_away()
    two.wait_until_away()
    for each in pair:
        each.archive.catch_up()
        assert each.text(A) == b"first;second;third"


def test_what_another_server_has_removed_is_gone_here_too(pair: tuple[Shared, Shared]) -> None:
    one, two = pair
    one.append(frame(A, 0, b"old"))
    one.wait_until_away()
    two.archive.catch_up()
    (segment,) = two.archive.sealed()
    two.archive.drop_segment(segment)
    one.archive.catch_up()
    assert one.archive.sealed() == {} and one.text(A) == b""
    assert one.archive.was_removed(A)


def test_pieces_of_two_servers_may_overlap_in_any_way(pair: tuple[Shared, Shared]) -> None:
    """Each has cut the same output into other parts."""
    text = bytes(range(65, 91)) * 8
    for each, cuts in zip(pair, ((0, 100, 120, 208), (0, 180, 208)), strict=True):
        for begin, end in itertools.pairwise(cuts):
            assert each.append(frame(A, begin, text[begin:end])) == [None]
    for each in pair:
        each.wait_until_away()
    for each in pair:
        each.archive.catch_up()
        assert each.text(A) == text
        for offset in range(len(text)):
            found = each.archive.read(A, 0, offset, 7)
            assert (found.offset, found.data) == (offset, text[offset : offset + 7])


def test_a_piece_that_two_servers_have_is_nobodys_to_remove(pair: tuple[Shared, Shared]) -> None:
    """A node that was told of no seal ships the same piece again, to the next server."""
    _, two = pair
    for each in pair:
        assert each.append(frame(A, 0, b"all of it", end=True)) == [None]
        each.wait_until_away()
    for each in pair:
        each.archive.catch_up()
    assert two.archive.drop_jobs(["another"]) == 0
    for each in pair:
        each.archive.catch_up()
        each.again()
        assert each.text(A) == b"all of it"
        assert not each.archive.was_removed(A)


def test_a_segment_that_could_not_be_noted_as_sealed_is_later(
    pair: tuple[Shared, Shared], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    seal, refused = one.archive._index.seal, []

    def full(number: int, size: int) -> None:
        if not refused:
            refused.append(number)
            raise OSError(28, "No space left on device")
        seal(number, size)

    monkeypatch.setattr(one.archive._index, "seal", full)
    assert one.append(frame(A, 0, b"x" * 5_000, end=True)) == [None]  # more than a segment
    assert refused
    one.wait_until_away()
    two.archive.catch_up()
    assert two.text(A) == b"x" * 5_000
