"""Orders inside a queue, in the pool: who is reserved for, and who goes past."""

from __future__ import annotations

import pytest

from towline.core import invariants
from towline.core.commands import NodeUp, SetPriority, Submit
from towline.core.pool import Pool
from towline.simulation.described.policies import Setup
from towline.simulation.traces.batch import one_machine, workload_of
from towline.simulation.traces.inflation import empty_pool
from towline.simulation.traces.swf import SwfJob


class Machine:
    """Four processors on which nothing ends: passes at each arrival only."""

    def __init__(self, order: str) -> None:
        self.pool: Pool = empty_pool(Setup("", order=order).rules([]))
        self.now_s = 0
        self.jobs: list[SwfJob] = []
        self.pool.apply(NodeUp(node=one_machine(4).nodes[0]), 0)

    def submit(self, at_s: int, *jobs: tuple[int, int]) -> None:
        """(processors, requested seconds) of each; a pass follows."""
        self.now_s = at_s
        for size, requested_s in jobs:
            number = len(self.jobs)
            self.jobs.append(SwfJob(number, at_s, requested_s, requested_s, size, 1, 1))
            one = workload_of(self.jobs).submissions[number]
            self.pool.apply(Submit(job=one.job, namespace="default", spec=one.spec), at_s * 1000)
        self.schedule()

    def schedule(self) -> None:
        self.pool.schedule(self.now_s * 1000)
        self.pool.collect()
        invariants.check(self.pool.state)

    @property
    def running(self) -> set[int]:
        return {int(attempt.job) for attempt in self.pool.state.attempts.values()}


@pytest.mark.parametrize(("order", "first"), [("easy", 2), ("easy-sjf", 3), ("sjf", 3)])
def test_behind_the_reservation_an_order_may_be_another_one(order: str, first: int) -> None:
    """Three of four processors are taken for 100 s, the second job needs all; one may be filled."""
    machine = Machine(order)
    machine.submit(0, (3, 100))
    machine.submit(1, (4, 60))
    assert machine.running == {0}
    machine.submit(2, (1, 90), (1, 10))
    assert machine.running == {0, first}


def test_priority_stands_before_the_order_also_behind_the_reservation() -> None:
    machine = Machine("easy-sjf")
    machine.submit(0, (3, 100))
    machine.submit(1, (4, 500))
    machine.jobs.append(SwfJob(2, 2, 90, 90, 1, 1, 1))
    one = workload_of(machine.jobs).submissions[2]
    machine.pool.apply(Submit(job=one.job, namespace="default", spec=one.spec), 2000)
    machine.pool.apply(SetPriority(job="1", priority=60), 2000)
    machine.pool.apply(SetPriority(job="2", priority=55), 2000)
    machine.submit(2, (1, 10))
    assert machine.running == {0, 2}


@pytest.mark.parametrize(("order", "starts"), [("unicef", True), ("easy", False)])
def test_whoever_time_puts_first_has_the_reservation(order: str, starts: bool) -> None:
    """Job 1 needs all four processors when job 0 ends, job 2 three of them. Under UNICEF the short job 2
    is before it by second 60, so that one processor is left beside its reservation."""
    machine = Machine(order)
    machine.submit(0, (3, 100))
    machine.submit(1, (4, 1000))
    machine.submit(2, (3, 20))
    machine.submit(60, (1, 600))
    assert machine.running == ({0, 3} if starts else {0})


@pytest.mark.parametrize("order", ["easy", "easy-sjf", "wfp3", "unicef", "sjf", "slowdown"])
def test_invariants_hold_under_every_order(order: str) -> None:
    machine = Machine(order)
    for at in range(40):
        machine.submit(at * 7, (1 + at * 5 % 4, 20 + at * 37 % 300), (1 + at % 3, 30))
    assert machine.running
