"""Files that come from elsewhere: whole or not at all, below their folder or not at all."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from towline.cli.artifacts.receiving import Destination, parts_of
from towline.errors import OperatorError, RequestError
from towline.model.views import ArtifactView


def artifact(path: str, size: int, mode: str = "644") -> ArtifactView:
    at = "2026-01-31T12:00:00.123Z"
    return ArtifactView(path=path, kind="file", size_bytes=size, modified_at=at, mode=mode)


def take(
    destination: Destination, path: str, *pieces: bytes, size: int | None = None, mode: str = "644"
) -> int:
    """Let a file come in; returns how many bytes were told of."""
    told: list[int] = []

    async def coming() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    expected = sum(map(len, pieces)) if size is None else size
    work = destination.take(parts_of(path), artifact(path, expected, mode), coming(), told.append)
    asyncio.run(work)
    return sum(told)


def test_a_file_comes_whole_with_its_permissions(tmp_path: Path) -> None:
    destination = Destination(tmp_path / "new", force=False)
    assert take(destination, "a/b/run", b"12", b"345", mode="777") == 5
    file = tmp_path / "new/a/b/run"
    assert file.read_bytes() == b"12345"
    assert stat.S_IMODE(file.stat().st_mode) & 0o122 == 0o100, "to be run, by nobody else to be written"


def test_a_file_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    destination = Destination(tmp_path, force=False)
    with pytest.raises(OperatorError, match="has 2 bytes, and 9"):
        take(destination, "a", b"12", size=9)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    destination = Destination(tmp_path, force=False)
    assert destination.occupied(("a",))
    with pytest.raises(RequestError, match="--force"):
        take(destination, "a", b"theirs")
    assert (tmp_path / "a").read_text() == "mine"
    take(Destination(tmp_path, force=True), "a", b"theirs")
    assert (tmp_path / "a").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_links_that_stand_in_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (inside / "d").symlink_to(outside)
    (outside / "f").write_text("kept")
    (inside / "f").symlink_to(outside / "f")
    destination = Destination(inside, force=True)
    with pytest.raises(OperatorError, match="cannot be written"):
        take(destination, "d/x", b"1")
    take(destination, "f", b"new")
    assert (outside / "f").read_text() == "kept"
    assert not (inside / "f").is_symlink()
    assert [path.name for path in outside.iterdir()] == ["f"]


def test_a_folder_whose_place_a_file_has_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("")
    with pytest.raises(OperatorError, match="Not a directory"):
        Destination(tmp_path, force=True).make_folder(("d",))
    with pytest.raises(OperatorError, match="File exists"):
        Destination(tmp_path / "d", force=True).make_folder(())


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", "a//b", "x\0"])
def test_names_that_lead_out_are_refused(path: str) -> None:
    with pytest.raises(OperatorError, match="no path below a folder"):
        parts_of(path)
