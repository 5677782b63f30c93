"""kill -9 while commits are under way: what was acknowledged is there, and nothing by halves."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
from pathlib import Path

from tests.unit.store.committer import EVENTS_A_COMMIT, commit_for_ever

ROUNDS = 20


def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.unit.store.committer"])
    chance = random.Random(7)
    acknowledged = 0
    for _ in range(ROUNDS):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=commit_for_ever, args=(str(path), theirs))
        process.start()
        theirs.close()
        for _ in range(chance.randint(1, 15)):
            acknowledged = ours.recv()
        process.kill()
        process.join()
        try:
            while True:  # what it said in the moment before
                acknowledged = ours.recv()
        except EOFError:
            ours.close()
        process.close()
        check(path, acknowledged)


def check(path: Path, acknowledged: int) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    (event_no,) = connection.execute("SELECT event_no FROM pool").fetchone()
    # At most one commit was on its way without an answer.
    assert event_no in (acknowledged, acknowledged + EVENTS_A_COMMIT)
    for table in ("event", "element", "attempt"):
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert count == event_no
    connection.close()
