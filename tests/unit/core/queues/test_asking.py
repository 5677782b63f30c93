"""What is said of queues and of what waits in them: why, plan, and the views of queues."""

from __future__ import annotations

from copy import deepcopy

import msgspec
import pytest
from tests.unit.core.driver import Driver, node_row, task

from towline.core import invariants
from towline.core.commands import SetQueue
from towline.errors import InvalidDocument, NotFound
from towline.model.job import JobSpec, Limit, Resources, TaskSpec

ONE = Resources(cpu_milli=1000, memory_bytes=2**20, pids=1)


def why(driver: Driver, job: str = "j1", index: int | None = None) -> tuple[str, str]:
    view = driver.pool.explain(job, "a", index)
    return view.summary, " | ".join(view.place)


def plan(driver: Driver, queue: str = "default", **tasks: TaskSpec) -> tuple[list[object], list[object]]:
    """(task, node, count) of what would be placed, (task, count, summary) of what would wait; and
    nothing may have changed."""
    before = _picture(driver)
    view = driver.pool.plan(JobSpec(name="planned", tasks=tasks, queue=queue), "default")
    assert _picture(driver) == before
    invariants.check(driver.pool.state)
    placed = [(one.task, one.node, one.count) for one in view.placements]
    return placed, [(one.task, one.count, one.summary) for one in view.waiting]


def _picture(driver: Driver) -> object:
    state = driver.pool.state
    held = {name: (list(queue.held), queue.active, queue.jobs) for name, queue in state.queues.queues.items()}
    rows = msgspec.json.encode([deepcopy(driver.task_rows()), driver.pool.nodes_view(), held])
    return rows, state.event_no, sorted(map(str, state.attempts)), len(state.backlog.tasks())


def test_a_queue_at_its_bounds_says_so() -> None:
    driver = Driver(node_row(cpu_milli=8000))
    driver.step(SetQueue(name="q", maximum={"cpu": 2000}), SetQueue(name="p", max_active=1))
    driver.submit("j1", queue="q", a=task(size=3, resources=ONE))
    driver.submit("j2", queue="p", a=task(size=2, resources=ONE))
    driver.submit("j3", queue="q", a=task(resources=Resources(cpu_milli=3000, memory_bytes=1, pids=1)))
    summary, place = why(driver)
    assert "queue q is at its maximum: it holds 2 CPUs of 2 CPUs, and this asks for 1 CPU" in summary
    assert place == (
        "queue q holds 25% of the pool; its weight gives it 50% | "
        "queues before it: p (holds 12.5%; its weight gives it 50%) | place 1 in queue q"
    )
    assert "tow queue set q --max cpu=" in str(driver.pool.explain("j1", "a", None).remedy)
    assert "queue p has 1 active elements, its max_active" in why(driver, "j2")[0]
    assert driver.pool.explain("j2", "a", None).remedy == (
        "the end of one of them, or tow queue set p --max-active …"
    )
    driver.step(SetQueue(name="none", max_active=0))
    driver.submit("j4", queue="none", a=task(resources=ONE))
    assert driver.pool.explain("j4", "a", None).remedy == "tow queue set none --max-active …"
    assert why(driver, "j3")[0] == "asks for 3 CPUs, queue q has at most 2 CPUs: it can never start"


def test_a_key_and_who_is_before() -> None:
    driver = Driver(node_row(cpu_milli=1000))
    driver.submit("j1", priority=70, a=task(size=5, resources=ONE, limit=Limit(key="db", max=1)))
    driver.submit("j2", priority=40, a=task(resources=ONE))
    driver.submit("j3", priority=40, a=task(resources=ONE))
    assert "1 active elements hold the key 'db', of which 1 may" in why(driver)[0]
    driver.submit("j4", priority=30, a=task(resources=ONE))
    summary, place = why(driver, "j4")
    assert summary == "no node has room now: 1 CPU asked, 0 CPUs free"
    assert "place 4 in queue default; before it: name-of-j1/a (j1) (priority 70, this one's is 30)" in place
    assert why(driver, "j3")[1].endswith("name-of-j2/a (j2) (older)")


def test_what_a_maximum_has_left_is_kept_for_the_first() -> None:
    driver = Driver(node_row(cpu_milli=8000))
    driver.step(SetQueue(name="q", maximum={"cpu": 2000}))
    driver.submit("j1", queue="q", a=task(resources=ONE))
    two = Resources(cpu_milli=2000, memory_bytes=1, pids=1)
    driver.submit("j2", queue="q", priority=60, a=task(resources=two))
    driver.submit("j3", queue="q", a=task(resources=ONE))
    assert why(driver, "j3")[0] == (
        "what queue q has left of its cpu maximum is kept for name-of-j2/a (j2), which is before it"
    )


def test_a_placed_element_tells_its_record() -> None:
    driver = Driver(node_row(cpu_milli=1000))
    driver.submit(a=task(resources=ONE))
    placed = driver.pool.explain("j1", "a", 0).placed
    assert placed is not None
    assert placed.startswith("queue default at 0%")
    assert driver.table.attempts[("j1", 0, 0, 1)].placed == placed


def test_a_plan_places_as_the_pass_would_and_changes_nothing() -> None:
    driver = Driver(node_row("n1", cpu_milli=2000), node_row("n2", cpu_milli=3000))
    driver.step(SetQueue(name="q", maximum={"cpu": 1000}))
    driver.submit("j1", a=task(size=1, resources=ONE))
    placed, waiting = plan(driver, a=task(size=6, resources=ONE), b=task("a"))
    assert placed == [("a", "n1", 1), ("a", "n2", 3)]
    assert waiting[0] == ("a", 2, "no node has room now: 1 CPU asked, at most 0 CPUs free")
    assert waiting[1] == ("b", 1, "it waits for a to succeed")
    placed, waiting = plan(driver, "q", a=task(size=2, resources=ONE))
    assert len(placed) == 1
    assert "queue q is at its maximum" in str(waiting)
    # What is planned is what happens.
    driver.submit("j2", a=task(size=4, resources=ONE))
    nodes = [row.node for row in driver.table.attempts.values() if row.job == "j2"]
    assert nodes == ["n1", "n2", "n2", "n2"]
    assert plan(driver, a=task(resources=ONE))[0] == []


def test_a_plan_waits_behind_what_is_queued() -> None:
    driver = Driver(node_row(cpu_milli=2000))
    driver.step(SetQueue(name="q", max_active=1))
    driver.submit("j1", queue="q", a=task(size=3, limit=Limit(key="k", max=5), resources=ONE))
    placed, waiting = plan(driver, "q", a=task(limit=Limit(key="k", max=1), resources=ONE))
    assert (placed, len(waiting)) == ([], 1)
    assert plan(driver, a=task(limit=Limit(key="k", max=1)))[0] == []
    assert len(plan(driver, a=task(limit=Limit(key="k", max=2)))[0]) == 1
    with pytest.raises(InvalidDocument, match="no queue 'nope'"):
        plan(driver, "nope", a=task())


def test_queues_are_shown_as_they_stand() -> None:
    driver = Driver(node_row(cpu_milli=4000))
    driver.step(SetQueue(name="p", weight_milli=3000), SetQueue(name="c", parent="p", maximum={"gpu": 500}))
    driver.submit("j1", queue="c", a=task(size=9, resources=ONE))
    views = {view.name: view for view in driver.pool.queues_view()}
    assert list(views) == ["c", "default", "p"]
    c, p = views["c"], views["p"]
    assert (c.share, c.fair_share, c.dominant, c.active, c.queued, c.jobs) == (1.0, 1.0, "cpu", 4, 5, 1)
    assert (p.share, p.active, p.queued, p.jobs, p.weight) == (1.0, 4, 5, 0, 3.0)
    assert c.maximum == {"gpu": 0.5}
    assert c.held["cpu"] == 4.0
    assert views["default"].fair_share == 0.25
    with pytest.raises(NotFound, match="did you mean p"):
        driver.pool.queue_view("pp")
