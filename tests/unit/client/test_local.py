"""The folder of a local server, and a server that cannot start."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from towline.client import connect
from towline.client.local import LOCK, LocalServer, home_directory
from towline.errors import RequestError, Unavailable


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_home_is_made_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWLINE_HOME", str(tmp_path / "a" / "b"))
    assert home_directory() == tmp_path / "a" / "b"
    assert mode(tmp_path / "a" / "b") == 0o700


def test_home_is_dot_towline_when_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOWLINE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_directory() == tmp_path / ".towline"


def test_open_home_of_ours_is_closed_to_others(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    (home / LOCK).touch()
    home_directory(home)
    assert mode(home) == 0o700


def test_folder_with_other_files_is_not_taken_over(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o755)
    (home / "thesis.tex").touch()
    with pytest.raises(RequestError, match=r"holds other files.*chmod 700"):
        home_directory(home)
    assert mode(home) == 0o755


def test_home_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(RequestError, match=r"belongs to user \d+, and you are user 54321"):
        home_directory(tmp_path)


def test_file_as_home_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="cannot be used"):
        home_directory(tmp_path / "file")


def test_name_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="too long a name for a Unix socket"):
        home_directory(tmp_path / ("x" * 100))


async def test_remote_servers_are_refused_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWLINE_SERVER", "https://tow.example")
    with pytest.raises(RequestError, match="TOWLINE_TOKEN is not"):
        await connect()


async def test_server_that_ends_at_its_start_is_told_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho the disk is on fire >&2\nexit 9\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    local = LocalServer(home_directory(tmp_path / "home"))
    with pytest.raises(Unavailable, match=r"exit status 9\)\.\nThe last lines of .*\n  the disk is on fire"):
        await local.ensure()
    with pytest.raises(Unavailable, match="the disk is on fire") as raised:
        await local.ensure()
    assert str(raised.value).count("the disk is on fire") == 1, "only the lines of this start are shown"
