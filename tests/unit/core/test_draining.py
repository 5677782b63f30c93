"""Nodes that are drained, with a deadline and without, and nodes that are forgotten."""

from __future__ import annotations

import pytest
from tests.unit.core.driver import Driver, node_row, task

from towline.core.commands import AttemptUpdate, Cancel, Drain, ForgetNode, NodeDown, Report, Undrain
from towline.errors import NotFound, RequestError
from towline.model.job import Retries


def two_nodes() -> Driver:
    return Driver(node_row("n1"), node_row("n2", "i2"))


def preempted(attempt: str) -> AttemptUpdate:
    return AttemptUpdate(attempt=attempt, state="finished", reason="preempted", exit_code=143)


def nodes_of(driver: Driver) -> dict[str, int]:
    return {node.row.id: len(node.attempts) for node in driver.pool.state.nodes.values()}


def test_a_drained_node_takes_nothing_new_and_what_runs_ends_by_itself() -> None:
    driver = Driver(node_row("n1"))
    driver.submit(a=task(size=8))
    started = driver.starts()
    assert len(started) == 4
    driver.step(Drain(node="n1"))
    driver.tick(3_600_000)
    assert driver.stops() == []
    driver.exit(started[0])
    assert driver.starts() == []
    why = driver.pool.explain("j1", "a", 4)
    assert "being drained" in why.summary + " ".join(why.details)
    driver.reload()
    assert driver.pool.nodes_view()[0].state == "disconnected"
    driver.join(node_row("n1"))
    view = driver.pool.nodes_view()[0]
    assert (view.state, view.drain_until) == ("draining", None)
    driver.step(Undrain(node="n1"))
    assert driver.pool.nodes_view()[0].state == "ready"
    assert len(driver.starts()) > 0


def test_at_the_deadline_what_runs_moves_and_it_costs_no_retry() -> None:
    driver = two_nodes()
    driver.submit(a=task(size=8, retries=Retries(limit=0)))
    started = driver.starts()
    assert nodes_of(driver) == {"n1": 4, "n2": 4}
    driver.step(Drain(node="n1", deadline_ms=60_000))
    driver.tick(30_000)
    assert driver.stops() == []
    driver.tick(31_000)
    stops = driver.stops()
    assert [(order.node, order.reason) for order in stops] == [("n1", "preempted")] * 4
    driver.tick(5_000)
    assert driver.stops() == []  # once
    driver.step(Report(node="n1", updates=tuple(preempted(order.attempt) for order in stops)))
    assert driver.task_row().queued == 4
    element = driver.element(int(stops[0].attempt.split("-")[2]))
    assert (element.state, element.failures, element.losses) == ("queued", 0, 0)
    assert nodes_of(driver) == {"n1": 0, "n2": 4}
    moved = {order.attempt for order in stops}
    for attempt in started:
        if attempt not in moved:
            driver.exit(attempt, node="n2")
    again = driver.starts()
    assert nodes_of(driver) == {"n1": 0, "n2": 4}
    assert all(attempt.endswith("-2") for attempt in again)
    for attempt in again:
        driver.exit(attempt, node="n2")
    assert driver.job_row().state == "succeeded"


def test_a_drained_attempt_may_still_succeed_or_be_cancelled() -> None:
    driver = Driver(node_row("n1"))
    driver.submit(a=task(size=2))
    one, two = driver.starts()
    driver.step(Drain(node="n1", deadline_ms=1))
    driver.tick(5_000)
    driver.step(Cancel(job="j1", task="a", index=1))
    driver.exit(one)
    driver.step(Report(node="n1", updates=(preempted(two),)))
    assert driver.element(0).state == "succeeded"
    assert driver.element(1).state == "cancelled"


def test_a_stop_that_the_node_never_heard_of_ends_nothing_for_good() -> None:
    """The node was away when the deadline came, and has never received the attempt."""
    driver = Driver(node_row("n1"))
    driver.submit(a=task())
    driver.starts()
    driver.step(NodeDown(node="n1"))
    driver.step(Drain(node="n1", deadline_ms=1))
    driver.tick(5_000)
    driver.join(node_row("n1"))
    assert driver.element().state == "queued"
    driver.step(Undrain(node="n1"))
    assert driver.starts() == ["j1-0-0-2"]


def test_a_forgotten_node_loses_what_it_had_whatever_the_task_wanted() -> None:
    driver = two_nodes()
    driver.submit(a=task(size=8, on_disconnect="wait"))
    driver.starts()
    with pytest.raises(RequestError, match="is connected"):
        driver.step(ForgetNode(node="n1"))
    driver.step(NodeDown(node="n1"))
    driver.tick(60_000)
    assert nodes_of(driver)["n1"] == 4
    driver.step(ForgetNode(node="n1"))
    assert nodes_of(driver)["n1"] == 0
    assert driver.task_row().queued == 4
    assert [view.id for view in driver.pool.nodes_view()] == ["n2"]
    driver.reload()
    assert [view.id for view in driver.pool.nodes_view()] == ["n2"]
    driver.join(node_row("n1", "i3"))
    assert [view.id for view in driver.pool.nodes_view()] == ["n1", "n2"]


def test_a_node_is_meant_by_its_id_or_its_name() -> None:
    rows = [node_row("n1"), node_row("n2"), node_row("n3")]
    rows[1].name = rows[2].name = "twin"
    driver = Driver(*rows)
    assert driver.pool.node_id("n1") == "n1"
    with pytest.raises(NotFound, match="Several nodes are named twin"):
        driver.step(Drain(node="twin"))
    with pytest.raises(NotFound, match="the nodes are n1, twin, twin"):
        driver.step(Undrain(node="n9"))
