"""Queues with real containers: shares under load, bounds at every moment, and why something waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.e2e.home import Home, Maker, until

SLOTS = 8
HELD = "while [ ! -e /marks/go ]; do sleep 0.1; done"
pytestmark = [
    pytest.mark.containers,
    pytest.mark.own_home,
    pytest.mark.one_machine("counts what one node has"),
]


class Ran(NamedTuple):
    """An element that has run, by the files that its container wrote."""

    name: str
    begin_ns: int
    end_ns: int


@pytest.fixture
def marks(home: Home) -> Path:
    """A folder that containers mount, on a node with room for ``SLOTS`` of their elements."""
    home.env |= {"TOWLINE_NODE_CPU": "2", "TOWLINE_NODE_MEMORY": "4Gi"}
    folder = home.work / "marks"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.fixture
def box(busybox_image: str) -> Maker:
    return Maker(busybox_image)


def marking(box: Maker, name: str, script: str = "sleep 0.3", cpu: float = 0.25, **fields: Any) -> Any:
    """A task whose elements leave a file when they begin and one when they end."""
    run = f"touch /marks/b-{name}-$TOW_INDEX; {script}; touch /marks/e-{name}-$TOW_INDEX"
    mounts = [{"source": "marks", "target": "/marks"}]
    return box(run, resources={"cpu": cpu}, mounts=mounts, **fields)


def ran(marks: Path) -> list[Ran]:
    """What has begun and ended, in the order of beginning."""
    found = [
        Ran(end.name[2:], (marks / f"b-{end.name[2:]}").stat().st_mtime_ns, end.stat().st_mtime_ns)
        for end in marks.glob("e-*")
    ]
    return sorted(found, key=lambda one: one.begin_ns)


def most_at_once(found: list[Ran]) -> int:
    """The most that ran at any moment."""
    moves = sorted([(one.begin_ns, 1) for one in found] + [(one.end_ns, -1) for one in found])
    now = most = 0
    for _, change in moves:
        now += change
        most = max(most, now)
    return most


def running(home: Home, job: str) -> int:
    attempts = [one["attempts"] for one in home.json("job", job)["tasks"][0]["elements"]]
    return sum(bool(each) and each[-1]["state"] == "running" for each in attempts)


def test_two_queues_under_load_have_shares_of_three_to_one(home: Home, box: Maker, marks: Path) -> None:
    home.tow("queue", "create", "a", "--weight", "3")
    home.tow("queue", "create", "b", "--weight", "1")
    gate = home.submit({"t": marking(box, "gate", HELD, cpu=2)}, name="gate")
    jobs = [
        home.submit({"t": marking(box, "b", array=12)}, name="b", queue="b"),
        home.submit({"t": marking(box, "a", array=36)}, name="a", queue="a"),
    ]
    (marks / "go").touch()
    for job in (gate, *jobs):
        home.tow("wait", job)
    found = [one for one in ran(marks) if not one.name.startswith("gate")]
    assert len(found) == 48
    assert most_at_once(found) <= SLOTS
    # As long as both have something to start, three of a start for each of b, and three run beside it.
    queues = [one.name[0] for one in found]
    both = found[: min(len(queues) - 1 - queues[::-1].index(name) for name in "ab")]
    assert len(both) >= 32
    assert 0.68 <= sum(one.name[0] == "a" for one in both) / len(both) <= 0.82, queues
    held = {name: sum(one.end_ns - one.begin_ns for one in both if one.name[0] == name) for name in "ab"}
    assert 2 <= held["a"] / held["b"] <= 4.5, held


def test_limits_and_maxima_hold_at_every_moment(home: Home, box: Maker, marks: Path) -> None:
    home.tow("queue", "create", "few", "--max", "cpu=0.5")
    home.tow("queue", "create", "three", "--max-active", "3")
    keyed = {"key": "db-1", "max": 2}
    jobs = [
        home.submit({"t": marking(box, "few", array=8)}, name="few", queue="few"),
        home.submit({"t": marking(box, "three", array=9)}, name="three", queue="three"),
        home.submit({"t": marking(box, "keyed1", array=4, limit=keyed)}, name="one"),
        home.submit({"t": marking(box, "keyed2", array=4, limit=keyed)}, name="two"),
    ]
    for job in jobs:
        home.tow("wait", job)
    found = ran(marks)
    assert len(found) == 25
    for name, most in (("few", 2), ("three", 3), ("keyed", 2)):
        assert most_at_once([one for one in found if one.name.startswith(name)]) == most, name
    assert most_at_once(found) <= SLOTS


def test_why_is_right_at_each_step(home: Home, box: Maker, marks: Path) -> None:
    def why(what: str) -> Any:
        return home.json("why", what)

    home.tow("queue", "create", "one", "--max-active", "1")
    holding = home.submit({"t": marking(box, "hold", HELD, array=6, expect="10m")}, name="hold")
    until(lambda: running(home, holding) == 6, "the node to be nearly full")  # each since a time of its own
    # Two of eight quarters of a CPU are free. The large one needs them when four of the six have ended.
    large = home.submit({"t": marking(box, "large", cpu=1.5, expect="5m")}, name="large", priority=80)
    longer = home.submit({"t": marking(box, "long", cpu=0.5, expect="2h")}, name="long", priority=60)
    assert why(f"{longer}/t")["summary"].startswith(f"where it fits it would delay large/t ({large})")
    short = home.submit({"t": marking(box, "short", HELD, cpu=0.5, expect="1m")}, name="short", priority=40)
    first = why(f"{large}/t")
    assert first["summary"] == "no node has room now: 1.5 CPUs asked, 0 CPUs free"
    assert first["expected_start_is"] == "reserved"
    assert "is reserved for it from" in " ".join(first["place"])
    assert first["remedy"] == "ends of what runs: more CPUs free on one node"
    behind = why(f"{longer}/t")
    assert f"before it: large/t ({large}) (priority 80, this one's is 60)" in " ".join(behind["place"])
    assert behind["expected_start"] >= first["expected_start"]
    filling = why(f"{short}/t")
    assert filling["state"] == "active"
    assert filling["placed"].endswith("; backfilled before large/t")
    bounded = home.submit({"t": box("sleep 600", array=2, limit={"key": "k", "max": 1})}, name="bounded")
    assert "queued" in {why(f"{bounded}/t.{index}")["state"] for index in (0, 1)}
    home.tow("cancel", bounded)
    quota = home.submit({"t": box("true", array=3, resources={"cpu": 2})}, name="quota", queue="one")
    assert why(f"{quota}/t.2")["summary"].startswith("no node has room now: 2 CPUs asked")
    (marks / "go").touch()
    for job in (holding, short, large, longer, quota):
        home.tow("wait", job)
    placed = why(f"{large}/t")
    assert (placed["state"], placed["placed"][:13]) == ("succeeded", "queue default")
    assert why(f"{quota}/t.2")["placed"].startswith("queue one at 0%; turn 1 of its pass; best of 1 nodes")
