"""The worked example of docs/SCHEDULING.md, number by number."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from tests.unit.core.queues.fleet import machine
from tests.unit.core.queues.test_reservations import ONE_S, Timed, timed

from towline.core.commands import AttemptUpdate, NodeUp, Report, SetQueue, StartOrder, Submit
from towline.model.job import JobSpec

GUIDE = Path(__file__).parents[4] / "docs" / "SCHEDULING.md"
WEIGHTS = {"a": 3, "b": 1}


def rows() -> list[list[str]]:
    """The example's table: what is placed, shares, shares over weights, who is next."""
    text = GUIDE.read_text().partition("## An example")[2]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def example() -> tuple[Timed, list[StartOrder]]:
    """The pool of the example after its first pass, and what that placed, in order."""
    fleet = Timed([])
    fleet.step(*(SetQueue(name=name, weight_milli=1000 * weight) for name, weight in WEIGHTS.items()))
    fleet.step(*(NodeUp(node=machine(f"n{at}", cpu=4)) for at in (1, 2)))
    for name in WEIGHTS:
        spec = JobSpec(name=name, tasks={"t": timed((1, None), 60, 100)}, queue=name)
        fleet.pool.apply(Submit(job=name, namespace="default", spec=spec), fleet.now_ms)
    fleet.pool.schedule(fleet.now_ms)
    return fleet, [order for order in fleet.pool.collect()[1] if isinstance(order, StartOrder)]


def test_the_table_is_what_the_pass_does() -> None:
    fleet, orders = example()
    sequence = [order.job for order in orders]
    table = rows()
    assert len(table) == 6
    for placed, shares, over_weights, who in table:
        before = [] if placed == "–" else placed.split()
        held = {name: Fraction(before.count(name), 8) for name in WEIGHTS}
        assert [Fraction(text) for text in shares.split(",")] == list(held.values())
        by_weight = {name: held[name] / weight for name, weight in WEIGHTS.items()}
        assert [Fraction(text) for text in over_weights.split(",")] == list(by_weight.values())
        assert sequence[: len(before)] == before
        assert sequence[len(before)] == who.split()[0] == min(WEIGHTS, key=lambda name: by_weight[name])
    assert (sequence.count("a"), sequence.count("b")) == (6, 2)
    ended = next(order for order in orders if order.job == "b")
    update = AttemptUpdate(
        attempt=f"b-0-{ended.index}-{ended.number}", state="finished", reason="exited", exit_code=0
    )
    fleet.step(Report(node=ended.node, updates=(update,)))
    assert fleet.pool.state.queues.queues["b"].active == 2  # the free CPU is its own again


def test_the_large_element_gets_the_node_that_is_empty_first() -> None:
    fleet = Timed([(4, []), (4, [])])
    fleet.step(*(SetQueue(name=name, weight_milli=1000 * weight) for name, weight in WEIGHTS.items()))
    begin = fleet.now_ms
    fleet.submit("first", timed((3, None), 30), "a")
    fleet.submit("second", timed((3, None), 60), "b")
    fleet.submit("large", timed((4, None), 5), "a", priority=90)
    why = fleet.pool.explain("large", "t", 0)
    assert f"node {fleet.pool.state.columns.entries[0].row.name} is reserved for it" in why.place[-1]
    fleet.submit("short", timed((1, None), 30), "a")
    fleet.submit("long", timed((1, None), 31, 2), "a")
    nodes = {attempt.job: attempt.node for attempt in fleet.pool.state.attempts.values()}
    assert nodes["short"] == nodes["first"]
    assert nodes["long"] == nodes["second"]
    fleet.run_until(begin + 30 * ONE_S)
    assert fleet.started[("large", 0)] == begin + 30 * ONE_S
