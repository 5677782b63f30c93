"""``tow why`` tells the truth at each step."""

from __future__ import annotations

import pytest
from tests.unit.core.driver import Driver, each, node_row, task

from towline.core.commands import NodeDown
from towline.errors import NotFound
from towline.model.job import Backoff, Resources, Retries


def why(driver: Driver, name: str | None = "a", index: int | None = None) -> str:
    view = driver.pool.explain("j1", name, index)
    return f"{view.state}: {view.summary}"


def test_more_than_any_node_has() -> None:
    driver = Driver()
    driver.submit(a=task(resources=Resources(memory_bytes=64 * 2**30)))
    assert why(driver) == ("queued: it can never start here: 64 GiB asked, the node has 8 GiB")


def test_no_room_now_and_who_is_ahead() -> None:
    driver = Driver()
    driver.submit("j0", a=task(size=9))
    driver.submit(a=task())
    view = driver.pool.explain("j1", "a", None)
    assert view.summary == "no node has room now: 0.5 CPUs asked, 0 CPUs free"
    assert "place 2 in queue default; before it: name-of-j0/a (j0) (older)" in view.place


def test_a_runtime_that_no_node_has() -> None:
    driver = Driver()
    spec = task()
    driver.submit(a=type(spec)(image="oci:x", command=("true",)))
    assert why(driver) == "queued: it can never start here: cannot run the oci runtime: crun is not installed"


def test_waiting_running_and_retrying() -> None:
    driver = Driver()
    retries = Retries(limit=1, backoff=Backoff(first_ms=5000, jitter=0))
    driver.submit(a=task(retries=retries), b=task("a"), c=task(each("d"), size=2), d=task(size=2))
    assert why(driver) == "active: it is assigned to node n1, which has not started it yet"
    driver.report("j1-0-0-1", "running", started_at=driver.now_ms)
    assert why(driver) == "active: it runs on node n1"
    assert why(driver, "b") == "waiting: it waits for a to succeed"
    assert why(driver, "c", 1) == "waiting: it waits for d.1 to succeed"
    driver.exit("j1-0-0-1", code=9)
    assert why(driver).startswith(
        "queued: attempt 1 ended (exited with code 9); the next one may start in 5s"
    )


def test_what_has_succeeded_and_waits_for_the_server_says_so() -> None:
    driver = Driver()
    driver.submit(a=task())
    waits = "what it wrote waits: no space left"
    for told in (None, waits, None):  # a node of an earlier build says nothing of it
        driver.report("j1-0-0-1", "running", started_at=driver.now_ms, message=told)
    assert why(driver) == f"active: on node n1: {waits}"
    driver.reload()
    assert why(driver) == f"active: on node n1: {waits}"
    driver.exit("j1-0-0-1")
    assert driver.job_row().state == "succeeded"
    assert [row.message for row in driver.table.attempts.values()] != [waits]


def test_a_job_names_what_moves() -> None:
    driver = Driver()
    driver.submit(a=task(), b=task("a"))
    view = driver.pool.explain("j1", None, None)
    assert view.summary == "0 of 2 tasks have ended"
    assert view.details == ["a: active: 1 active of 1", "and 1 more tasks that have not ended"]


def test_no_node_and_a_node_that_is_away() -> None:
    driver = Driver(node_row(cpu_milli=500))
    driver.step(NodeDown(node="n1"))
    driver.submit(a=task())
    assert why(driver) == "queued: no node has room now: the node is not connected"
    for name, index in (("zzz", None), ("a", 5)):
        with pytest.raises(NotFound):
            driver.pool.explain("j1", name, index)
