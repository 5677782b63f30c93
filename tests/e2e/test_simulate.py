"""A pool's past at the terminal: run, exported, and replayed with nodes more."""

from __future__ import annotations

import pytest
from tests.e2e.home import Home, Maker


@pytest.mark.own_home("cluster")
def test_what_has_run_is_exported_and_replayed(home: Home, script: Maker) -> None:
    small = {"cpu": 1, "memory": "16Mi"}
    home.tow("queue", "create", "lab", "--max-active", "1")
    first, second = script("true", resources=small, array=3), script("true", resources=small, needs=["a"])
    job = home.submit({"a": first, "b": second}, queue="lab")
    home.tow("wait", job)
    home.tow("events", "export", "--since", "1h", "-o", "log.jsonl")
    home.tow("stop")
    found = home.json("simulate", "events", "log.jsonl", "--add-nodes", "2", "--plot", "log.svg")["policies"]
    assert list(found) == ["slowdown", "slowdown, 2 nodes more"]
    was, more = found.values()
    assert was["started"] == was["elements"] == 4 and was["guessed_lengths"] == 0
    # One at a time in this queue, whatever nodes there are.
    assert was["max_wait_s"] == more["max_wait_s"] > 0
    assert (home.work / "log.svg").stat().st_size > 0
