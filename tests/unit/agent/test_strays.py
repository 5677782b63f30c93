"""Ends that came before their starter's: of that attempt, and of no earlier process with the same pid."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conformance.runtimes.registry import process_plan

from towline.agent.supervision.attempt import Replay
from towline.agent.supervision.journal import Accepted, Confirmed, Journal, Record, Started, Stray
from towline.agent.supervision.roster import Roster
from towline.runtime.port import Runtime

STARTING: list[Record] = [
    Accepted(process_plan("/node", "job-0-0-1", "true")),
    Started("job-0-0-1", 77, True, 1, 2, 5_000, 5_000, 5, (6, 7)),
]


class NoRuntimes:
    def get(self, name: str) -> Runtime | None:
        return None


@pytest.fixture
def roster(tmp_path: Path) -> Roster:
    journal = Journal(str(tmp_path / "journal"))
    journal.rewrite(0, [])
    journal.found = [*STARTING, Stray(88, 0, None, None, start_ms=4_000)]
    return Roster(str(tmp_path), journal, NoRuntimes())


def test_it_is_taken_once(roster: Roster) -> None:
    roster.strays[88] = Stray(88, 5 << 8, 1, 2, start_ms=5_010)
    taken = roster.take_stray(88, since_ms=5_000)
    assert taken is not None
    assert taken.status == 5 << 8
    assert roster.take_stray(88, since_ms=5_000) is None


def test_an_earlier_process_of_the_same_pid_is_another_one(roster: Roster) -> None:
    """Else an attempt that runs would be told as succeeded by the end of some other before it."""
    assert roster.take_stray(88, since_ms=5_000) is None
    assert roster.strays == {}


def test_a_supervisor_that_follows_finds_what_it_may_need(roster: Roster) -> None:
    assert [record for record in roster.records() if isinstance(record, Stray)] == [*roster.strays.values()]
    assert roster.strays


def test_what_was_taken_is_not_found_again() -> None:
    end = Stray(88, 0, None, None, start_ms=5_010)
    assert Replay([*STARTING, end]).strays == {88: end}
    assert Replay([*STARTING, end, Confirmed("job-0-0-1", 88, 5_010)]).strays == {}


def test_without_starters_nothing_is_kept(roster: Roster) -> None:
    (attempt,) = roster.attempts.values()
    attempt.starting = False
    assert not [record for record in roster.records() if isinstance(record, Stray)]
