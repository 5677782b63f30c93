"""A node whose disk is full says so, and when it has room again."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from towline.agent.cluster.room import ENOUGH_BYTES, ENOUGH_INODES, LOW_BYTES, LOW_INODES, Room


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(f_bavail=ENOUGH_BYTES, f_frsize=1, f_files=10**6, f_favail=ENOUGH_INODES)
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    return found


def test_bytes_and_inodes_have_to_be_there(disk: SimpleNamespace) -> None:
    room = Room(Path("/home/n"))
    assert not room.look()
    assert room.limit({"process": None, "oci": "no crun"}) == {"process": None, "oci": "no crun"}
    disk.f_bavail = LOW_BYTES - 1
    assert room.look()
    full = "the node's disk is full: make room in /home/n"
    assert room.limit({"process": None, "oci": "no crun"}) == {"process": full, "oci": "no crun"}
    disk.f_bavail = ENOUGH_BYTES - 1
    assert not room.look(), "it takes more to be well again, so that nobody hears of each byte"
    disk.f_bavail = ENOUGH_BYTES
    assert room.look()
    assert room.problem is None
    disk.f_favail = LOW_INODES - 1
    assert room.look()


def test_a_file_system_without_a_count_of_inodes_has_enough(disk: SimpleNamespace) -> None:
    disk.f_files = disk.f_favail = 0
    room = Room(Path("/home/n"))
    assert not room.look()
    assert room.problem is None
