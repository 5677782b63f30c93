"""Whose the files are that containers of an Engine share with this machine."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, cast

import pytest

from towline.agent.docker.client import Engine
from towline.agent.docker.owners import Owners, take_back
from towline.model.job import TaskSpec
from towline.runtime.docker.spec import Traits, docker_data
from towline.runtime.policy import Policy
from towline.runtime.port import Plan


def plan_in(folder: Path, user: str | None, owner: tuple[int, int] = (0, 0)) -> Plan:
    for name in ("out", "secrets"):
        (folder / name).mkdir(mode=0o700)
    (folder / "secrets" / "TOKEN").write_text("x")
    (folder / "secrets" / "TOKEN").chmod(0o400)
    return Plan(
        attempt="j-0-0-1", runtime="docker", argv=("true",), env={}, directory="/d",
        logs="/l", out=str(folder / "out"), timeout_ms=None, grace_ms=1, max_log_bytes=1,
        secrets=str(folder / "secrets"),
        runtime_data=docker_data(TaskSpec(), "sha256:1", "sha256:1", user, "/", [], Policy(), owner),
    )  # fmt: skip


def owners(traits: Traits) -> Owners:
    return Owners(cast("Engine", None), traits)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """What is given away, by the files' names, in the place of doing so."""
    found: dict[str, tuple[int, int]] = {}

    def chown(path: Any, uid: int, gid: int, **how: Any) -> None:
        assert how == {"follow_symlinks": False}
        found[Path(path).name] = (uid, gid)

    monkeypatch.setattr(os, "chown", chown)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return found


@pytest.mark.parametrize(
    ("user", "first_ids", "wanted"),
    [
        (None, (0, 0), None),
        ("0", (0, 0), None),
        (None, (165536, 165537), (165536, 165537)),
        ("1000:50", (0, 0), (1000, 50)),
        ("1000", (165536, 165537), (166536, 165537)),
    ],
)
async def test_they_are_those_of_the_commands_user(
    given: dict[str, tuple[int, int]],
    tmp_path: Path,
    user: str | None,
    first_ids: tuple[int, int],
    wanted: tuple[int, int] | None,
) -> None:
    await owners(Traits(first_ids=first_ids)).give("c", plan_in(tmp_path, user))
    assert given == ({} if wanted is None else dict.fromkeys(("out", "secrets", "TOKEN"), wanted))


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


async def test_who_is_not_root_opens_them_to_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Root inside has no right to pass over modes, and it is not this user."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    await owners(Traits()).give("c", plan_in(tmp_path, None))
    assert modes_in(tmp_path) == {"out": 0o777, "secrets": 0o755, "TOKEN": 0o444}


def test_at_the_end_they_are_the_submitting_users(given: dict[str, tuple[int, int]], tmp_path: Path) -> None:
    plan = plan_in(tmp_path, None, owner=(1234, 1235))
    (tmp_path / "out" / "made").mkdir()
    (tmp_path / "out" / "made" / "file").touch()
    (tmp_path / "out" / "link").symlink_to("/etc/passwd")
    take_back(plan)
    assert given == dict.fromkeys(("out", "made", "file", "link"), (1234, 1235))
    given.clear()
    (tmp_path / "mine").mkdir()
    mine = (os.getuid(), os.getgid())
    take_back(plan_in(tmp_path / "mine", None, owner=mine))
    assert given == {}, "what is so already is left alone"
