"""Somebody removes TOWLINE_HOME while jobs run: nothing goes on in secret, and who follows is told."""

from __future__ import annotations

import shutil

import pytest
from tests.e2e.home import Home, Maker, gone, until


@pytest.mark.own_home
@pytest.mark.one_machine("is about the home that server and node share")
@pytest.mark.parametrize("replaced", [False, True])
def test_all_ends_and_a_follower_is_told(home: Home, script: Maker, replaced: bool) -> None:
    file = home.job_file({"a": script("exec sleep 1000")})
    following = home.start("run", file, "--json")
    until(home.payloads, "the job to run")
    before = [pid for pids in home.processes().values() for pid in pids] + home.payloads()
    home.path.rename(home.path.with_suffix(".old"))
    if replaced:
        home.path.mkdir(mode=0o700)
        home.tow("jobs")
    shutil.rmtree(home.path.with_suffix(".old"))
    for pid in before:
        gone(pid)
    _, err = following.communicate(timeout=60)
    assert following.returncode == 3, err
    assert ("not known any more" if replaced else "is gone") in err
    assert "Traceback" not in err
    if replaced:
        assert home.json("jobs") == {"jobs": [], "next_cursor": None}, "the server in its place serves"
    home.path.mkdir(exist_ok=True)
