"""Reservations hold, what is small goes round them, and nobody waits for ever."""

from __future__ import annotations

import random

import pytest
from tests.unit.core.queues.fleet import Fleet, machine

from towline.core import invariants
from towline.core.commands import SetPriority, SetQueue
from towline.model.job import Array, Resources, TaskSpec


def timed(cpu: int, length_ms: int, size: int = 1) -> TaskSpec:
    """Elements that say truly how long they run."""
    asked = Resources(cpu_milli=cpu * 1000, memory_bytes=2**20, pids=1)
    array = Array(first=0, last=size - 1)
    return TaskSpec(runtime="process", command=("true",), resources=asked, array=array, expect_ms=length_ms)


class Timed(Fleet):
    """Elements run exactly as long as their tasks say."""

    def __init__(self, cpus: list[int]) -> None:
        super().__init__([machine(f"n{at}", cpu=cpu) for at, cpu in enumerate(cpus)], self._length)

    def _length(self, job: str, index: int) -> int:
        return self.pool.state.jobs[job].spec.tasks["t"].expect_ms or 1


def test_smaller_work_fills_the_gap_without_delaying_the_first() -> None:
    fleet = Timed([4])
    begin = fleet.now_ms
    fleet.submit("a", timed(3, 10_000))
    fleet.submit("large", timed(4, 5_000), priority=60)
    fleet.submit("long", timed(1, 10_001))
    assert "large/t" in fleet.pool.explain("long", "t", 0).summary
    fleet.submit("fits", timed(1, 10_000))  # ends when the large one may start
    assert set(fleet.started) == {("a", 0), ("fits", 0)}
    why = fleet.pool.explain("large", "t", 0)
    assert why.expected_start is not None
    assert "reserved" in " ".join(why.place)
    fleet.run_until(begin + 60_000)
    assert fleet.started[("large", 0)] == begin + 10_000
    assert fleet.started[("long", 0)] == begin + 15_000


def test_a_later_submission_respects_a_reservation_of_an_earlier_pass() -> None:
    fleet = Timed([4, 2])
    begin = fleet.now_ms
    fleet.submit("a", timed(3, 10_000))
    fleet.submit("large", timed(4, 5_000), priority=60)
    fleet.run_until(begin + 1_000)
    fleet.submit("long", timed(1, 60_000, size=5))
    # The other node takes two of them; the gap beside ``a`` stays empty.
    assert sum(job == "long" for job, _ in fleet.started) == 2
    fleet.submit("above", timed(1, 60_000), priority=70)  # is before the reservation, not behind it
    assert ("above", 0) in fleet.started


def test_another_queue_with_a_higher_share_goes_round_too() -> None:
    fleet = Timed([4])
    begin = fleet.now_ms
    fleet.step(SetQueue(name="p"), SetQueue(name="q"))
    fleet.submit("a", timed(3, 10_000), "p")
    fleet.submit("large", timed(4, 5_000), "q")
    fleet.submit("b", timed(1, 60_000), "p")
    fleet.run_until(begin + 20_000)
    assert fleet.started[("large", 0)] == begin + 10_000
    assert fleet.started[("b", 0)] == begin + 15_000


@pytest.mark.parametrize("first", range(0, 100, 10))
def test_nobody_starves_whatever_comes(first: int) -> None:
    """An adversary that keeps the nodes busy with what goes first: small, short, other queues, in bursts."""
    for seed in range(first, first + 10):
        waited = _worst_wait(seed)
        assert waited < 1_500_000, f"seed {seed}: {waited} ms"


def _worst_wait(seed: int) -> int:
    draw = random.Random(seed)
    fleet = Timed([draw.choice((4, 8)) for _ in range(draw.randint(1, 3))] + [8])
    queues = ["default", "a", "b"][: draw.randint(1, 3)]
    for name in queues[1:]:
        fleet.step(SetQueue(name=name, weight_milli=draw.choice((500, 1000, 2000))))
    length_ms = draw.choice((1_000, 5_000, 20_000))
    begin = fleet.now_ms
    fleet.submit("keep", timed(1, length_ms, size=30), draw.choice(queues))
    fleet.submit("victim", timed(8, 20_000), queues[0])
    gap_ms = max(200, length_ms // draw.choice((4, 8, 16)))
    turn = 0
    while ("victim", 0) not in fleet.started and fleet.now_ms - begin < 2_000_000:
        fleet.run_until(fleet.now_ms + gap_ms)
        burst = draw.choice((1, 1, 1, 6))
        fleet.submit(f"s{turn}", timed(draw.choice((1, 1, 2)), length_ms, size=burst), draw.choice(queues))
        turn += 1
    invariants.check(fleet.pool.state)
    return fleet.started.get(("victim", 0), fleet.now_ms) - begin


def test_the_same_history_twice() -> None:
    assert [_worst_wait(seed) for seed in (3, 4)] == [_worst_wait(seed) for seed in (3, 4)]


def test_a_raised_priority_takes_the_reservation_over() -> None:
    fleet = Timed([4])
    begin = fleet.now_ms
    fleet.submit("a", timed(3, 10_000))
    fleet.submit("large", timed(4, 5_000), priority=60)
    fleet.submit("other", timed(4, 5_000), priority=50)
    fleet.step(SetPriority(job="other", priority=70))
    fleet.run_until(begin + 60_000)
    assert fleet.started[("other", 0)] == begin + 10_000
    assert fleet.started[("large", 0)] == begin + 15_000
