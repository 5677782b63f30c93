"""A pool whose store was restored from a backup: what was done since is not known, and no attempt's number is
given twice."""

from __future__ import annotations

from copy import deepcopy

import pytest
from tests.unit.core.driver import Driver, Table, node_row, task

from towline.core.commands import AttemptUpdate, NodeUp, attempt_key
from towline.core.leadership import attempts_before, raised
from towline.core.pool import Pool
from towline.model.job import Retries

NOW_S = 1_800_000_000
TERM = raised(7, NOW_S)
BEFORE = attempts_before(TERM)


def restored(driver: Driver, backup: Table, term: int = TERM + 1) -> Driver:
    """The same nodes with a leader that has only the backup."""
    driver.table = deepcopy(backup)
    snapshot = driver.table.snapshot()
    snapshot.term = term
    driver.pool = Pool.load(snapshot, driver.now_ms, silence=driver.silence)
    driver.orders.clear()
    return driver


def running(attempt: str) -> AttemptUpdate:
    return AttemptUpdate(attempt=attempt, state="running", started_at=1)


def number(attempt: str) -> int:
    return attempt_key(attempt)[3]


def test_terms_and_numbers_of_attempts_rise_together() -> None:
    assert attempts_before(1) == attempts_before(1_000_000) == attempts_before(NOW_S) == 0
    assert 0 < attempts_before(raised(1, NOW_S)) < attempts_before(raised(1, NOW_S + 1)) < 2**30
    assert attempts_before(TERM + 1000) == BEFORE  # by leaders alone no numbers are left out
    again = raised(TERM + 5, NOW_S)  # within the same second, or after the clock was set back
    assert again > TERM + 5 and attempts_before(again) > BEFORE
    assert raised(TERM, NOW_S + 100) < 2**63


def test_what_had_not_started_in_the_backup_begins_above_all_numbers() -> None:
    driver = Driver(node_row(cpu_milli=500))
    driver.submit(a=task(size=3, retries=Retries(limit=9)))
    backup = deepcopy(driver.table)
    used = {*driver.starts(), *(f"j1-0-{index}-{n}" for index in range(3) for n in range(1, 9))}
    restored(driver, backup).join(node_row(cpu_milli=500))
    seen: set[str] = set()
    while started := driver.starts():
        seen |= set(started)
        for attempt in started:
            driver.exit(attempt)
    assert driver.job_row().state == "succeeded"
    assert not seen & used
    assert {number(attempt) for attempt in seen} == {BEFORE + 1}


def test_what_its_node_still_has_goes_on() -> None:
    driver = Driver()
    driver.submit(a=task())
    (attempt,) = driver.starts()
    driver.step()
    backup = deepcopy(driver.table)
    driver.report(attempt, "running", started_at=1)
    restored(driver, backup).join(node_row(), running(attempt))
    assert (driver.starts(), driver.stops()) == ([], [])
    driver.exit(attempt)
    assert (driver.job_row().state, driver.element().number) == ("succeeded", 1)


def test_an_order_of_the_backup_is_not_given_again() -> None:
    """Its node may have carried it out, and have been told to forget it."""
    driver = Driver()
    driver.submit(a=task())
    (attempt,) = driver.starts()
    backup = deepcopy(driver.table)
    driver.exit(attempt)
    restored(driver, backup).join(node_row())
    (again,) = driver.starts()
    assert number(again) == BEFORE + 1
    assert driver.table.attempts["j1", 0, 0, 1].state == "lost"
    driver.reload()
    driver.exit(again)
    assert driver.job_row().state == "succeeded"


def test_at_most_once_is_kept() -> None:
    driver = Driver()
    driver.submit(a=task(retries=Retries(lost=0)))
    backup = deepcopy(driver.table)
    restored(driver, backup).join(node_row())
    assert driver.starts() == []
    assert (driver.job_row().state, driver.element().reason) == ("failed", "supervision_lost")


@pytest.mark.parametrize("later_first", [True, False])
def test_a_later_attempt_of_a_node_ends_the_earlier_one(later_first: bool) -> None:
    """As it had done before: it would be a number that falls where the earlier one counted again."""
    both = node_row("n1"), node_row("n2")
    driver = Driver(*both)
    driver.submit(a=task())
    (first,) = driver.starts()
    here = driver.table.attempts["j1", 0, 0, 1].node
    there = "n2" if here == "n1" else "n1"
    backup = deepcopy(driver.table)
    later = first.removesuffix("-1") + "-2"
    restored(driver, backup)
    hellos = [(here, running(first)), (there, running(later))]
    for name, known in reversed(hellos) if later_first else hellos:
        driver.step(NodeUp(node=node_row(name), known=(known,)))
    assert {(stop.node, stop.attempt, stop.reason) for stop in driver.stops()} == {
        (here, first, "superseded"),
        (there, later, "superseded"),
    }
    (next_one,) = driver.starts()
    assert number(next_one) == BEFORE + 1
    driver.exit(first, node=here)  # it had ended before it could be stopped: too late
    assert driver.job_row().state == "running"
    node = driver.table.attempts["j1", 0, 0, BEFORE + 1].node
    driver.exit(next_one, node=node)
    assert driver.job_row().state == "succeeded"


def test_nobody_ends_what_is_of_now_by_a_number() -> None:
    driver = Driver(node_row("n1"), node_row("n2"))
    restored(driver, driver.table)
    for name in ("n1", "n2"):
        driver.step(NodeUp(node=node_row(name), known=()))
    driver.submit(a=task())
    (attempt,) = driver.starts()
    here = driver.table.attempts["j1", 0, 0, BEFORE + 1].node
    there = "n2" if here == "n1" else "n1"
    for claimed in (BEFORE + 2, BEFORE, 2**31):
        driver.report(f"j1-0-0-{claimed}", "running", node=there)
    assert {stop.node for stop in driver.stops()} == {there}
    driver.exit(attempt, node=here)
    assert driver.job_row().state == "succeeded"


def test_what_was_lost_is_not_taken_back() -> None:
    driver = Driver()
    driver.submit(a=task(), b=task(retries=Retries(lost=3)))
    first, second = sorted(driver.starts())
    for attempt in (first, second):
        driver.report(attempt, "running", started_at=1)
    for _ in range(15):
        driver.tick(2_000)
    assert {row.state for row in driver.table.attempts.values()} == {"lost"}
    backup = deepcopy(driver.table)
    restored(driver, backup).join(node_row(), running(first), running(second))
    assert sorted(stop.attempt for stop in driver.stops()) == [first, second]
    assert {number(attempt) for attempt in driver.starts()} == {BEFORE + 1}
