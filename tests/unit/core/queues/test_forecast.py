"""The expected start that ``tow why`` tells: estimates that come true where lengths are true."""

from __future__ import annotations

import time
from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core.queues.fleet import Fleet, element, machine
from tests.unit.core.queues.test_reservations import ONE_S, Timed, timed

from towline.core.commands import SetQueue


def expected(fleet: Fleet, job: str, index: int = 0) -> tuple[int, str] | None:
    """(seconds since 1970, what it is) by ``explain``."""
    view = fleet.pool.explain(job, "t", index)
    if view.expected_start is None or view.expected_start_is is None:
        return None
    return round(datetime.fromisoformat(view.expected_start).timestamp()), view.expected_start_is


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 8)), min_size=1, max_size=6),
)
def test_equal_elements_in_one_queue_start_when_they_are_expected_to(
    cpus: int, jobs: list[tuple[int, int]]
) -> None:
    fleet = Timed([(cpus, [])])
    for at, (length_s, size) in enumerate(jobs):
        fleet.submit(f"j{at}", timed((1, None), length_s, size), priority=90 - at)
    said = {
        (f"j{at}", index): expected(fleet, f"j{at}", index)
        for at, (_, size) in enumerate(jobs)
        for index in range(size)
        if (f"j{at}", index) not in fleet.started
    }
    begin_s = fleet.now_ms // ONE_S
    fleet.run_until(fleet.now_ms + 1_000 * ONE_S)
    for where, answer in said.items():
        assert answer is not None
        assert (where, answer[0] - begin_s) == (where, fleet.started[where] // ONE_S - begin_s)


def test_the_first_has_a_reservation_and_those_behind_it_estimates() -> None:
    fleet = Timed([(4, [])])
    begin_s = fleet.now_ms // ONE_S
    fleet.submit("a", timed((4, None), 10))
    fleet.submit("b", timed((4, None), 5, size=3), priority=60)
    fleet.submit("c", timed((3, None), 7))
    assert expected(fleet, "b", 0) == (begin_s + 10, "reserved")
    assert expected(fleet, "b", 2) == (begin_s + 20, "estimated")
    assert expected(fleet, "c") == (begin_s + 25, "estimated")
    why = fleet.pool.explain("c", "t", 0)
    assert why.remedy == "ends of what runs: more CPUs free on one node"


def test_a_queue_with_rivals_moves_on_at_its_share() -> None:
    fleet = Timed([(8, [])])
    fleet.step(SetQueue(name="a", weight_milli=3000), SetQueue(name="b"))
    for name in ("a", "b"):
        fleet.submit(f"j{name}", timed((1, None), 10, size=100), name)
    begin_ms = fleet.now_ms
    said = {(job, 50): expected(fleet, job, 50) for job in ("ja", "jb")}
    fleet.run_until(begin_ms + 1_000 * ONE_S)
    for where, answer in said.items():
        assert answer is not None
        true_s = fleet.started[where] // ONE_S
        assert abs(answer[0] - true_s) <= max(10, (true_s - begin_ms // ONE_S) // 5)


def test_a_maximum_bounds_the_pace_and_the_unknown_gives_no_estimate() -> None:
    fleet = Timed([(8, [])])
    fleet.step(SetQueue(name="q", max_active=2))
    begin_s = fleet.now_ms // ONE_S
    fleet.submit("j", timed((1, None), 10, size=9), "q")
    assert expected(fleet, "j", 8) == (begin_s + 40, "estimated")
    silent = Fleet([machine(cpu=8)], lambda job, index: 1)
    silent.submit("unknown", element(8, size=2), priority=90)
    silent.submit("behind", timed((8, None), 1))
    assert expected(silent, "behind") is None
    assert silent.pool.explain("behind", "t", 0).remedy is not None


def test_a_million_before_it_cost_little() -> None:
    fleet = Timed([(100, [])])
    begin_s = fleet.now_ms // ONE_S
    for at in range(20):
        fleet.submit(f"many{at}", timed((1, None), 10, size=50_000), priority=90 - at)
    begin = time.process_time()
    answer = expected(fleet, "many19", 49_999)
    assert time.process_time() - begin < 5
    assert answer is not None
    assert abs(answer[0] - begin_s - 99_990) < 1_000
    fleet.submit("for-years", timed((1, None), 10**8, size=10**6), priority=20)
    assert expected(fleet, "for-years", 10**6 - 1) is None
