"""What a pool says of a job that may come, beside other pools."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from tests.unit.core.driver import Driver, each, node_row, task

from towline.core.commands import Drain, ForgetNode, NodeDown, SetQueue
from towline.core.placement.filters.standing import IS_OPEN
from towline.core.pool.scheduling.offering import MOST_SHAPES
from towline.core.routing import UNSERVED, Offer
from towline.core.rows import GpuDevice
from towline.model.job import Condition, Gpu, JobSpec, Limit, Resources, TaskSpec

GPUS = tuple(GpuDevice(id=str(at), model="A100", memory_bytes=40 * 2**30) for at in range(4))


def asking(cpu_milli: int = 500, memory_bytes: int = 2**20, gpu: Gpu | None = None) -> Resources:
    return Resources(cpu_milli=cpu_milli, memory_bytes=memory_bytes, pids=1, gpu=gpu)


def offer(driver: Driver, queue: str = "default", namespace: str = "default", **tasks: TaskSpec) -> Offer:
    return driver.pool.offer(JobSpec(name="j", tasks=tasks, queue=queue), namespace)


def test_an_empty_pool_has_nothing_to_offer_and_nothing_to_do() -> None:
    driver = Driver()
    driver.step(NodeDown(node="n1"), ForgetNode(node="n1"))
    assert offer(driver, a=task()) == Offer(pool="default", fits=False, room=0.0, backlog=0.0)
    driver.submit(a=task(size=4))  # half a CPU each, and a pool counts as having one
    assert offer(driver, a=task()).backlog == 2.0


def test_the_part_that_could_start_now() -> None:
    driver = Driver(node_row("n1", cpu_milli=2000), node_row("n2", cpu_milli=1400))
    assert offer(driver, a=task(size=6)) == Offer(pool="default", fits=True, room=1.0, backlog=0.0)
    assert offer(driver, a=task(size=12)).room == 0.5
    assert offer(driver, a=task(size=1_000_000)).room == 6 / 1_000_000
    driver.submit(a=task(size=5))
    assert offer(driver, a=task()).room == 1.0
    assert offer(driver, a=task(size=2)).room == 0.5
    assert offer(driver, a=task(resources=asking(901))) == Offer(
        pool="default", fits=True, room=0.0, backlog=pytest.approx(2500 / 3400)
    )


def test_tasks_of_several_shapes_share_what_is_free() -> None:
    driver = Driver(node_row("n1", cpu_milli=2000))
    small, large = task(size=2, resources=asking(500)), task(resources=asking(1000))
    assert offer(driver, a=small, b=large).room == 1.0
    assert offer(driver, a=small, b=large, c=task(resources=asking(250))).room == 0.75


def test_what_needs_something_else_first_has_to_fit_but_needs_no_room_yet() -> None:
    driver = Driver(node_row("n1", cpu_milli=2000))
    assert offer(driver, a=task(), b=task("a", size=100), c=task(each("b"), size=100)).room == 1.0
    assert not offer(driver, a=task(), b=task("a", resources=asking(2500))).fits


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({}, True),
        ({"resources": asking(2001)}, False),
        ({"resources": asking(memory_bytes=2**40)}, False),
        ({"where": (Condition(key="zone", values=("b",)),)}, True),
        ({"where": (Condition(key="zone", values=("c",)),)}, False),
        ({"runtime": "oci", "image": "x"}, False),
        ({"require": ("seccomp",)}, False),
        ({"on_disconnect": "stop"}, True),
        ({"resources": asking(gpu=Gpu(count=2))}, False),  # only on a node with a taint
        ({"resources": asking(gpu=Gpu(count=2)), "tolerate": ("gpu",)}, True),
        ({"resources": asking(gpu=Gpu(count=5)), "tolerate": ("gpu",)}, False),
        ({"resources": asking(gpu=Gpu(model=("H100",))), "tolerate": ("gpu",)}, False),
    ],
)
def test_it_fits_where_the_filters_let_it_on_a_node_that_is_empty(fields: dict[str, Any], fits: bool) -> None:
    driver = Driver(
        replace(node_row("n1", cpu_milli=2000), labels={"zone": "b"}),
        replace(node_row("n2", cpu_milli=2000), gpus=GPUS, taints=("gpu",)),
    )
    driver.submit(a=task(size=8, tolerate=("gpu",)))  # all CPUs are held: that is no matter of fit
    found = offer(driver, a=replace(task(), **fields))
    assert (found.fits, found.room) == (fits, 0.0)


def test_nodes_that_are_away_or_drained_count_and_lost_ones_do_not() -> None:
    driver = Driver(node_row("n1"))
    driver.step(Drain(node="n1"))
    assert offer(driver, a=task()) == Offer(pool="default", fits=True, room=0.0, backlog=0.0)
    driver.step(NodeDown(node="n1"))
    assert offer(driver, a=task()).fits
    for _ in range(15):
        driver.tick(2_000)
    assert driver.pool.nodes_view()[0].state == "lost"
    assert not offer(driver, a=task()).fits


def test_devices_are_shared_out_too() -> None:
    driver = Driver(replace(node_row("n1", cpu_milli=8000), gpus=GPUS))
    whole, half = asking(gpu=Gpu()), asking(gpu=Gpu(milli=500))
    assert offer(driver, a=task(size=4, resources=whole)).room == 1.0
    assert offer(driver, a=task(size=8, resources=half)).room == 1.0
    assert offer(driver, a=task(size=4, resources=half), b=task(size=2, resources=whole)).room == 1.0
    assert offer(driver, a=task(size=6, resources=half), b=task(size=2, resources=whole)).room == 0.75
    driver.submit(a=task(size=3, resources=whole))
    assert offer(driver, a=task(size=4, resources=half)).room == 0.5
    assert offer(driver, a=task()).backlog == 0.75


def test_maxima_of_queues_and_keys_bound_the_room() -> None:
    driver = Driver(node_row("n1", cpu_milli=4000))
    driver.step(
        SetQueue(name="team", maximum={"cpu": 1500}),
        SetQueue(name="a", parent="team"),
        SetQueue(name="b", parent="team", max_active=1),
    )
    assert offer(driver, "a", a=task(size=6)).room == 0.5
    assert offer(driver, "b", a=task(size=2)).room == 0.5
    driver.submit(queue="b", a=task())
    assert offer(driver, "b", a=task()) == Offer(pool="default", fits=True, room=0.0, backlog=0.125)
    assert offer(driver, "a", a=task(size=4)).room == 0.5
    assert not offer(driver, "a", a=task(resources=asking(1600))).fits  # at no time
    limited = task(size=4, limit=Limit(key="db", max=3))
    assert offer(driver, a=limited).room == 0.75
    driver.submit("j2", a=task(limit=Limit(key="db", max=2)))
    assert offer(driver, a=limited).room == 0.25
    assert offer(driver, namespace="other", a=limited).room == 0.75


def test_a_pool_without_the_queue_comes_last() -> None:
    driver = Driver()
    driver.step(SetQueue(name="team"), SetQueue(name="a", parent="team"))
    for queue in ("nowhere", "team"):
        assert offer(driver, queue, a=task()) == Offer(pool="default", fits=False, room=0.0, backlog=UNSERVED)


def test_the_backlog_is_what_is_queued_and_active() -> None:
    driver = Driver(node_row("n1", cpu_milli=2000))
    driver.submit(a=task(size=10), b=task("a", size=100))
    assert offer(driver, a=task()).backlog == 2.5
    driver.cancel()
    assert offer(driver, a=task()).backlog == 1.0  # what runs is told to stop
    for attempt in driver.starts():
        driver.report(attempt, reason="cancelled")
    assert offer(driver, a=task()).backlog == 0.0
    driver.submit("j2", a=task(resources=asking(1, memory_bytes=2**33)))
    assert offer(driver, a=task()).backlog == 1.0  # of memory
    driver.submit("j3", a=task(size=6))
    assert offer(driver, a=task()).backlog == pytest.approx(1.5005)
    driver.reload()
    assert offer(driver, a=task()).backlog == pytest.approx(1.5005)


def test_of_very_many_shapes_the_largest_are_looked_at() -> None:
    driver = Driver(node_row("n1", cpu_milli=2000))
    tasks = {f"t{at}": task(resources=asking(100 + at)) for at in range(3 * MOST_SHAPES)}
    assert offer(driver, **tasks).fits
    tasks["t5"] = task(resources=asking(2001))
    assert not offer(driver, **tasks).fits
    tasks["t5"] = task("t6", resources=asking(2000))
    found = offer(driver, **tasks)
    assert found.fits and 0 < found.room <= 1


def test_nothing_changes_and_a_pass_agrees() -> None:
    """What an empty backlog's offer promises to start, the pass starts."""
    rows = [
        replace(node_row(f"n{at}", cpu_milli=700 * (at + 1)), labels={"zone": "ab"[at % 2]})
        for at in range(6)
    ]
    driver = Driver(*rows)
    zone = (Condition(key="zone", values=("a",)),)
    for at, spec in enumerate((task(size=9), task(size=20, where=zone), task(size=99), task(size=3))):
        before = driver.pool.collect()[0]
        found = offer(driver, a=spec)
        assert before.empty and driver.pool.collect()[0].empty
        driver.submit(f"j{at}", a=spec)
        assert found.room == len(driver.starts()) / (spec.array.size if spec.array else 1)


def test_the_filter_that_is_about_what_a_node_is_for_now_is_left_out() -> None:
    assert IS_OPEN in Driver().pool.state.columns.rules.static
