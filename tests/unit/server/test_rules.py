"""Placement policies and plugins by the server's settings."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from tests.unit.core.driver import empty, node_row
from tests.unit.core.placement.nodes_made import shape

from towline.core.commands import NodeUp, Submit
from towline.core.placement.choosing.scores import BestFit
from towline.core.placement.nodes import Nodes
from towline.core.placement.policies.headroom import Headroom
from towline.core.pool import Pool
from towline.errors import OperatorError
from towline.model.job import Array, JobSpec, Resources, TaskSpec
from towline.server.leader import guarding
from towline.server.leader.guarding import FAULTS, Faults, GuardedScore
from towline.server.leader.rules import ORDERS, rules_maker

PLUGIN = """
class Quiet:
    name = "quiet"
    def mask(self, view, ask, columns):
        return view.free_cpu_milli[columns] > 500
    def reason(self, view, ask, column):
        return "too busy"

class Wish:
    name = "wish"
    def scores(self, view, ask, columns):
        return columns

class Nothing:
    pass

class Largest:
    name = "largest"
    learns = True
    def key(self, now_ms, item):
        return (-item.size_milli,)
"""
BAD = """
class Picky:
    name = "picky"
    def mask(self, view, ask, columns):
        if any(view.entries[column].row.name == "broken" for column in columns):
            raise ValueError("what is broken?")
        return [True] * len(columns)
    def reason(self, view, ask, column):
        return "it does not please"

class BadScore:
    name = "bad-score"
    def scores(self, view, ask, columns):
        return [0.5] * len(columns)

class BadPolicy:
    name = "bad-policy"
    def scores(self, view, ask, columns):
        raise KeyError("x")
    def observe(self, ask, count):
        raise KeyError("y")

class BadOrder:
    name = "bad-order"
    learns = False
    def key(self, now_ms, item):
        return "soon"
"""
ENTRIES = (
    "[towline.placement]\nquiet = tow_plugin:Quiet\nwish = tow_plugin:Wish\nnothing = tow_plugin:Nothing\n"
    "picky = tow_plugin:Picky\nbad-score = tow_plugin:BadScore\nbad-policy = tow_plugin:BadPolicy\n"
    "[towline.order]\nbad-order = tow_plugin:BadOrder\n"
    "largest = tow_plugin:Largest\nnothing = tow_plugin:Nothing\n"
)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with such entry points, as pip leaves it."""
    (tmp_path / "tow_plugin.py").write_text(PLUGIN + BAD)
    info = tmp_path / "tow_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tow-plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tow_plugin", raising=False)


def test_policies_by_name_with_a_memory_for_each_pool() -> None:
    make = rules_maker("headroom", "")
    assert isinstance(make().policy, Headroom)
    assert make().policy is not make().policy
    assert isinstance(rules_maker("best-fit", "")().policy, BestFit)


def test_entry_points_become_filters_scores_and_policies(installed: None) -> None:
    rules = rules_maker("best-fit", "quiet, wish")()
    assert rules.filters[-1].name == "quiet"
    assert [score.name for score in rules.scores] == ["wish"]
    assert rules_maker("wish", "")().policy.name == "wish"


def test_what_is_wrong_is_named(installed: None) -> None:
    with pytest.raises(OperatorError, match=r"placement_policy names 'fast'.*best-fit, .*nothing, .*wish"):
        rules_maker("fast", "")
    with pytest.raises(OperatorError, match="placement_plugins names 'missing'"):
        rules_maker("headroom", "missing")
    with pytest.raises(OperatorError, match="has to have a name and a method mask or scores"):
        rules_maker("headroom", "nothing")


def test_orders_by_name() -> None:
    assert {name: rules_maker("headroom", "", name)().order.name for name in ORDERS} == {
        name: name for name in ORDERS
    }
    assert rules_maker("headroom", "")().order.name == "slowdown"


def test_an_entry_point_becomes_the_order_of_a_pool(installed: None) -> None:
    rules = rules_maker("headroom", "", "largest")()
    pool = Pool.load(empty(), 0, rules)
    for cpus in (1, 2):
        asked = Resources(cpu_milli=cpus * 1000, memory_bytes=1, pids=1)
        spec = JobSpec(
            name="job", tasks={"t": TaskSpec(runtime="process", command=("true",), resources=asked)}
        )
        pool.apply(Submit(job=f"of {cpus}", namespace="default", spec=spec), 0)
    pool.apply(NodeUp(node=node_row(cpu_milli=2000)), 0)
    pool.schedule(0)
    assert [attempt.job for attempt in pool.state.attempts.values()] == ["of 2"]


def test_wrong_orders_are_named(installed: None) -> None:
    with pytest.raises(OperatorError, match=r"order_policy names 'fifo'.*slowdown, .*, largest, nothing"):
        rules_maker("headroom", "", "fifo")
    with pytest.raises(OperatorError, match="has to have a name and a learns and a method key"):
        rules_maker("headroom", "", "nothing")


def test_a_plugin_that_fails_is_named_and_stops_nothing(installed: None) -> None:
    FAULTS.__init__()
    rules = rules_maker("bad-policy", "picky, bad-score", "bad-order")()
    pool = Pool.load(empty(), 0, rules)
    pool.apply(NodeUp(node=node_row("n1")), 0)
    pool.apply(NodeUp(node=node_row("broken")), 0)
    for at in range(2):
        small = TaskSpec(runtime="process", command=("true",), resources=Resources(cpu_milli=1000))
        tasks = {"t": replace(small, array=Array(first=0, last=3))}
        pool.apply(Submit(job=f"j{at}", namespace="default", spec=JobSpec(name="j", tasks=tasks)), 0)
    pool.schedule(0)
    assert [attempt.node for attempt in pool.state.attempts.values()] == ["n1", "n1"]
    why = pool.explain("j1", "t", 0)
    assert "1 node: the filter picky failed: ValueError: what is broken?" in why.details
    told = " ".join(FAULTS.problems())
    for name, what in (
        ("picky", "ValueError: what is broken?"),
        ("bad-score", "scores gave float64 values, integers are wanted"),
        ("bad-order", "key gave 'soon', a tuple of integers is wanted"),
    ):
        assert f"the placement plugin {name!r} failed" in told
        assert what in told


def test_answers_that_do_not_fit_and_calls_that_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd:
        name = "odd"
        answer: object = [True]
        takes_s = 0.0

        def scores(self, view: object, ask: object, columns: object) -> object:
            clock[0] += self.takes_s
            return self.answer

    clock = [0.0]
    monkeypatch.setattr(guarding, "perf_counter", lambda: clock[0])

    faults, odd = Faults(), Odd()
    score = GuardedScore(odd, faults)
    nodes, columns = Nodes(), np.arange(3)
    for answer, what in (([1, 2], r"shape \(2,\)"), ("high", "values, integers"), (None, "integers")):
        odd.answer = answer
        assert score.scores(nodes, shape(), columns).tolist() == [0, 0, 0]
        assert re.search(what, faults.problems()[0])
    odd.answer, odd.takes_s = [3, 1, 2], 2 * guarding.SLOW_S
    for _ in range(guarding.SLOW_CALLS):
        assert score.scores(nodes, shape(), columns).tolist() == [3, 1, 2]
    assert score.scores(nodes, shape(), columns).tolist() == [0, 0, 0]
    assert "slow too often" in faults.problems()[0]
