"""Timeouts, stops, and what is killed with them."""

from __future__ import annotations

from tests.conformance.runtimes.node import Node, eventually

POLITE = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.02; done"
TRAPPED_MS = 1000
"""By then a shell has set its trap, on a busy machine too."""
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.02; done"


def test_timeout_asks_first(node: Node) -> None:
    plan = node.plan(POLITE, timeout_ms=TRAPPED_MS)
    node.run(plan)
    update = node.ended(plan)
    assert (update.reason, update.exit_code, update.signal) == ("timed_out", 7, None)
    assert node.output(plan) == b"ready\nbye\n"


def test_timeout_kills_after_the_grace(node: Node) -> None:
    plan = node.plan(STUBBORN, timeout_ms=TRAPPED_MS, grace_ms=200)
    node.run(plan)
    update = node.ended(plan)
    assert (update.reason, update.exit_code, update.signal) == ("timed_out", None, 9)
    assert update.started_at is not None
    assert update.finished_at is not None
    assert update.finished_at - update.started_at >= TRAPPED_MS + 150


def test_stop_with_a_reason(node: Node) -> None:
    plan = node.plan(POLITE)
    node.run(plan)
    node.printed(plan, b"ready")
    node.stop(plan, "preempted")
    update = node.ended(plan)
    assert (update.state, update.reason, update.exit_code) == ("finished", "preempted", 7)


def test_stop_at_once(node: Node) -> None:
    plan = node.plan(POLITE)
    node.run(plan)
    node.printed(plan, b"ready")
    node.stop(plan, grace_ms=0)
    update = node.ended(plan)
    assert (update.reason, update.exit_code, update.signal) == ("cancelled", None, 9)
    assert node.output(plan) == b"ready\n"


def test_a_second_stop_shortens_the_grace(node: Node) -> None:
    plan = node.plan(STUBBORN)
    node.run(plan)
    node.printed(plan, b"ready")
    node.stop(plan, grace_ms=3_600_000)
    node.stop(plan, "preempted", grace_ms=0)
    update = node.ended(plan)
    assert (update.reason, update.signal) == ("cancelled", 9)


def test_an_end_before_the_stop_stands(node: Node) -> None:
    plan = node.plan("exit 4")
    node.run(plan)
    assert node.ended(plan).reason == "exited"
    node.stop(plan)
    other = node.plan("true")
    node.run(other)
    node.ended(other)
    ends = [u.reason for u in node.history if u.attempt == plan.attempt and u.state == "finished"]
    assert ends == ["exited"]


def test_a_stop_before_the_start_counts(node: Node) -> None:
    """Sent in one frame: whether it was spawned before or not, it ends as cancelled."""
    plans = [node.plan("sleep 3600") for _ in range(12)]
    node.run(*plans)
    for plan in plans:
        node.stop(plan, grace_ms=0)
    assert {node.ended(plan).reason for plan in plans} == {"cancelled"}


def test_stopping_what_is_not_there_is_nothing(node: Node) -> None:
    plan = node.plan("true")
    node.stop(plan)
    assert node.result("exit 2").exit_code == 2


def test_the_end_takes_its_children_along(node: Node) -> None:
    plan = node.plan("sleep 3600 & setsid sleep 3600 & (setsid sh -c 'sleep 3600 & wait' &); exit 6")
    node.run(plan)
    assert node.ended(plan).exit_code == 6
    eventually(lambda: not node.processes_of(plan), "processes are left")


def test_a_stop_outlives_the_supervisor(node: Node) -> None:
    plan = node.plan(STUBBORN)
    node.run(plan)
    node.printed(plan, b"ready")
    node.stop(plan, "preempted", grace_ms=1500)
    sync = node.plan("true")  # answered after the stop, so the stop is on record
    node.run(sync)
    node.ended(sync)
    node.kill("supervisor")
    update = node.ended(plan)
    assert (update.reason, update.signal) == ("preempted", 9)


def test_a_timeout_outlives_both(node: Node) -> None:
    plan = node.plan(POLITE, timeout_ms=1000)
    node.run(plan)
    node.printed(plan, b"ready")
    node.kill("both")
    update = node.ended(plan)
    assert (update.reason, update.exit_code) == ("timed_out", 7)
    assert node.output(plan) == b"ready\nbye\n"
