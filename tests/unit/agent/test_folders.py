"""Folders that are used again are as empty as new ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from towline.agent.supervision.folders import Folders
from towline.runtime.port import StartFailed


def test_an_empty_folder_is_used_again(tmp_path: Path) -> None:
    folders = Folders(str(tmp_path))
    first, second = tmp_path / "deep" / "a", tmp_path / "deep" / "b"
    folders.take(str(first))
    inode = first.stat().st_ino
    assert folders.give_back(str(first))
    assert not first.exists()
    folders.take(str(second))
    assert (second.stat().st_ino, list(second.iterdir())) == (inode, [])


def test_what_holds_something_stays(tmp_path: Path) -> None:
    folders = Folders(str(tmp_path))
    path = tmp_path / "a"
    folders.take(str(path))
    (path / "file").touch()
    assert not folders.give_back(str(path))
    assert (path / "file").exists()
    folders.take(str(path))
    assert (path / "file").exists()


def test_another_mode_is_not_passed_on(tmp_path: Path) -> None:
    folders = Folders(str(tmp_path))
    path = tmp_path / "a"
    folders.take(str(path))
    path.chmod(0o700)
    inode = path.stat().st_ino
    keeper = os.open(path, os.O_RDONLY)  # so that the inode's number is not given out again
    assert folders.give_back(str(path))
    folders.take(str(path))
    assert path.stat().st_ino != inode
    os.close(keeper)


def test_giving_back_what_is_gone(tmp_path: Path) -> None:
    assert Folders(str(tmp_path)).give_back(str(tmp_path / "nothing"))


def test_spare_ones_do_not_pile_up(tmp_path: Path) -> None:
    for _ in range(3):
        folders = Folders(str(tmp_path))
        for n in range(200):
            folders.take(str(tmp_path / str(n)))
        for n in range(200):
            assert folders.give_back(str(tmp_path / str(n)))
        assert len(list((tmp_path / "spare").iterdir())) == 128


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartFailed, match="cannot be made: Not a directory"):
        Folders(str(tmp_path)).take(str(tmp_path / "file" / "a"))
