"""Looks at what attempts have written, and whose it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from towline.runtime.linux.owning import own_all
from towline.runtime.linux.written import Written


def test_what_is_written_is_counted_piece_by_piece(tmp_path: Path):
    for name in ("a", "b/c", "b/d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 8192)
    os.link(tmp_path / "a", tmp_path / "again")
    (tmp_path / "loop").symlink_to(tmp_path)
    look = Written([str(tmp_path), str(tmp_path / "nowhere")])
    answers = [look.look(2) for _ in range(4)]
    assert answers[:3] == [None, None, None]
    found = answers[3]
    assert found is not None
    assert 3 * 8192 <= found < 4 * 8192 + 16384
    (tmp_path / "a").unlink()
    (tmp_path / "again").unlink()
    second = look.look(100)
    assert second is not None
    assert second < found


def test_a_folder_that_vanishes_is_empty(tmp_path: Path):
    assert Written([str(tmp_path / "gone")]).look(10) == 0


@pytest.mark.containers
def test_everything_is_given_but_never_through_a_symlink(tmp_path: Path):
    (tmp_path / "out/deep").mkdir(parents=True)
    (tmp_path / "out/deep/file").touch()
    (tmp_path / "outside").touch()
    (tmp_path / "out/link").symlink_to(tmp_path / "outside")
    assert own_all(str(tmp_path / "out"), 1234, 1235, 10)
    for path in (tmp_path / "out", tmp_path / "out/deep", tmp_path / "out/deep/file", tmp_path / "out/link"):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (1234, 1235)
    assert (tmp_path / "outside").stat().st_uid == os.getuid()


@pytest.mark.containers
def test_more_than_a_few_entries_are_left_to_a_command(tmp_path: Path):
    for number in range(5):
        (tmp_path / str(number)).touch()
    assert not own_all(str(tmp_path), 1234, 1234, 3)
    assert own_all(str(tmp_path), 1234, 1234, 5)
    assert own_all(str(tmp_path / "gone"), 1, 1, 1)
