"""Shares between queues: weighted DRF against a plain reference, guarantees, maxima, convergence."""

from __future__ import annotations

import random
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core.driver import Driver, node_row, task
from tests.unit.core.queues.fleet import GIB, Fleet, element, machine

from towline.core import invariants
from towline.core.commands import Command, NodeUp, SetQueue, Submit
from towline.model.job import JobSpec, Resources

Demand = tuple[int, int]
"""(CPUs, GiB) of one element."""


def progressive_filling(cpu: int, memory: int, demands: list[Demand], weights: list[int]) -> list[int]:
    """DRF as its paper gives it: whoever has the lowest share over weight gets an element, if it fits.

    Written for the test alone: fractions, no heaps, every queue looked at in every step.
    """
    counts = [0] * len(demands)
    blocked: set[int] = set()
    while len(blocked) < len(demands):

        def share(at: int) -> tuple[Fraction, int]:
            c, m = demands[at]
            held = max(Fraction(counts[at] * c, cpu), Fraction(counts[at] * m, memory))
            return held / weights[at], at

        best = min((at for at in range(len(demands)) if at not in blocked), key=share)
        used = [sum(n * d[r] for n, d in zip(counts, demands, strict=True)) for r in (0, 1)]
        if used[0] + demands[best][0] <= cpu and used[1] + demands[best][1] <= memory:
            counts[best] += 1
        else:
            blocked.add(best)
    return counts


DEMANDS = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=5)


def fill(cpu: int, memory: int, demands: list[Demand], weights: list[int]) -> list[int]:
    fleet = Fleet([], lambda job, index: 10**9)
    commands: list[Command] = [NodeUp(node=machine(cpu=cpu, memory_gib=memory))]
    for at, ((c, m), weight) in enumerate(zip(demands, weights, strict=True)):
        spec = JobSpec(name="j", tasks={"t": element(c, m, size=cpu + memory)}, queue=f"q{at}")
        commands.append(SetQueue(name=f"q{at}", weight_milli=weight * 1000))
        commands.append(Submit(job=f"j{at}", namespace="default", spec=spec))
    fleet.step(*commands)  # one pass looks at all of them
    invariants.check(fleet.pool.state)
    return [fleet.pool.state.queues.queues[f"q{at}"].active for at in range(len(demands))]


@settings(max_examples=120, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), DEMANDS, st.data())
def test_a_pass_fills_as_drf_does(cpu: int, memory: int, demands: list[Demand], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(1, 4), min_size=len(demands), max_size=len(demands)))
    assert fill(cpu, memory, demands, weights) == progressive_filling(cpu, memory, demands, weights)


@settings(max_examples=80, deadline=None)
@given(st.integers(10, 40), st.integers(10, 40), DEMANDS)
def test_nobody_envies_beyond_one_element(cpu: int, memory: int, demands: list[Demand]) -> None:
    """With what another queue of the same weight holds, no queue could run more than one element more
    than it does; unless that other one only has what nobody else could use."""
    counts = fill(cpu, memory, demands, [1] * len(demands))
    shares = [
        max(Fraction(n * c, cpu), Fraction(n * m, memory)) for n, (c, m) in zip(counts, demands, strict=True)
    ]
    used = [sum(n * d[r] for n, d in zip(counts, demands, strict=True)) for r in (0, 1)]
    free = (cpu - used[0], memory - used[1])
    for mine in range(len(demands)):
        c, m = demands[mine]
        step = max(Fraction(c, cpu), Fraction(m, memory))
        for other in range(len(demands)):
            theirs = max(Fraction(demands[other][0], cpu), Fraction(demands[other][1], memory))
            ahead = shares[other] - theirs - shares[mine]
            # It could only overtake after my next element had stopped fitting.
            assert ahead <= 0 or c > free[0] or m > free[1], (counts, step)


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 30), st.integers(8, 30), DEMANDS, st.data())
def test_asking_for_more_than_needed_gains_nothing(
    cpu: int, memory: int, demands: list[Demand], data: st.DataObject
) -> None:
    """Strategy-proof up to one element: who overstates what an element needs runs no more of them."""
    liar = data.draw(st.integers(0, len(demands) - 1))
    c, m = demands[liar]
    told = (c + data.draw(st.integers(0, 3)), m + data.draw(st.integers(0, 3)))
    honest = fill(cpu, memory, demands, [1] * len(demands))[liar]
    lying = fill(cpu, memory, [*demands[:liar], told, *demands[liar + 1 :]], [1] * len(demands))[liar]
    assert lying <= honest + 1


def test_weights_count_at_every_level() -> None:
    fleet = Fleet([], lambda job, index: 10**9)
    for name, parent, weight in (("x", None, 3), ("y", None, 1), ("x1", "x", 2), ("x2", "x", 1)):
        fleet.step(SetQueue(name=name, parent=parent, weight_milli=weight * 1000))
    for queue in ("x1", "x2", "y"):
        fleet.submit(f"j-{queue}", element(size=200), queue)
    fleet.step(NodeUp(node=machine(cpu=80, memory_gib=800)))
    active = {name: queue.active for name, queue in fleet.pool.state.queues.queues.items()}
    assert active == {"default": 0, "x": 60, "x1": 40, "x2": 20, "y": 20}


def test_a_guarantee_goes_first_and_the_rest_is_shared() -> None:
    driver = Driver(node_row(cpu_milli=8000))
    driver.step(SetQueue(name="lab", guaranteed={"cpu": 4000}), SetQueue(name="b", weight_milli=9000))
    driver.submit("b1", queue="b", a=task(size=100, resources=Resources(cpu_milli=1000, memory_bytes=1)))
    assert len(driver.starts()) == 8  # what nobody else wants is lent
    driver.submit("lab1", queue="lab", a=task(size=100, resources=Resources(cpu_milli=1000, memory_bytes=1)))
    for index in range(4):
        driver.exit(f"b1-0-{index}-1")
    assert [name.split("-")[0] for name in driver.starts()] == ["lab1"] * 4
    driver.exit("b1-0-4-1")
    assert [name.split("-")[0] for name in driver.starts()] == ["b1"]  # 4/8 of weight 1, 3/8 of weight 9


def test_a_guarantee_below_a_parent_that_is_over_its_own() -> None:
    driver = Driver(node_row(cpu_milli=8000))
    one = Resources(cpu_milli=1000, memory_bytes=1)
    driver.step(
        SetQueue(name="p", guaranteed={"cpu": 4000}),
        SetQueue(name="p1", parent="p", guaranteed={"cpu": 2000}),
        SetQueue(name="p2", parent="p"),
        SetQueue(name="other"),
    )
    driver.submit("j1", queue="p2", a=task(size=100, resources=one))
    driver.submit("j2", queue="other", a=task(size=100, resources=one))
    driver.submit("j3", queue="p1", a=task(size=100, resources=one))
    driver.starts()
    driver.exit("j1-0-0-1")
    driver.exit("j1-0-1-1")
    assert [name.split("-")[0] for name in driver.starts()] == ["j3", "j3"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_maxima_are_never_exceeded_and_used_in_full(seed: int) -> None:
    draw = random.Random(seed)
    fleet = Fleet(
        [machine(f"n{at}", cpu=8, memory_gib=16) for at in range(3)], lambda job, index: 1 + index * 13 % 50
    )
    fleet.step(SetQueue(name="p", maximum={"cpu": 12_000}, max_active=9))
    for at in range(4):
        maximum = {draw.choice(("cpu", "memory")): draw.choice((3, 5)) * (1000 if at % 2 else GIB)}
        fleet.step(SetQueue(name=f"q{at}", parent="p" if at < 3 else None, maximum=maximum))
    for at in range(12):
        fleet.submit(f"j{at}", element(draw.choice((1, 2, 3)), draw.choice((1, 2)), 6), f"q{at % 4}")
    while fleet.ends:
        fleet.run_until(fleet.now_ms + 7)
        invariants.check(fleet.pool.state)
        for queue in fleet.pool.state.queues.queues.values():
            assert all(queue.held[at] <= most for at, most in queue.maximum.items()), queue.name
            assert queue.max_active is None or queue.active <= queue.max_active


def test_twenty_equal_queues_have_equal_shares_after_ten_minutes() -> None:
    draw = random.Random(7)
    nodes = [machine(f"n{at}", cpu=32, memory_gib=128) for at in range(50)]
    fleet = Fleet(nodes, lambda job, index: 40_000 + (index * 7919 + sum(map(ord, job)) * 104_729) % 100_000)
    for at in range(20):
        fleet.step(SetQueue(name=f"q{at}"))
    for at in range(20):
        for part in range(3):
            cpu, memory = draw.choice(((1, 1), (1, 6), (2, 4), (0.5, 4), (1, 4)))
            fleet.submit(f"j{at}-{part}", element(cpu, memory, size=3_000), f"q{at}")
    largest = 2 / (50 * 32)
    sums = [0.0] * 20
    begin = fleet.now_ms
    for turn in range(60):
        fleet.run_until(begin + 600_000 + turn * 1000)
        now = [fleet.share(f"q{at}") for at in range(20)]
        # At every moment they differ by no more than one element, here 2.2 % of a queue's share.
        assert max(now) - min(now) <= largest + 1e-9
        sums = [total + share for total, share in zip(sums, now, strict=True)]
    means = [total / 60 for total in sums]
    ideal = sum(means) / len(means)
    worst = max(abs(mean - ideal) / ideal for mean in means)
    assert worst < 0.01, means


def test_a_million_elements_never_starve_ten() -> None:
    fleet = Fleet([machine(cpu=10, memory_gib=1000)], lambda job, index: 1000)
    fleet.step(SetQueue(name="a"), SetQueue(name="b"))
    fleet.submit("many", element(size=1_000_000), "a")
    fleet.run_until(fleet.now_ms + 10_000)
    fleet.submit("few", element(size=10), "b")
    begin = fleet.now_ms
    fleet.run_until(begin + 3_000)
    assert max(fleet.started[("few", index)] for index in range(10)) - begin <= 2_000
