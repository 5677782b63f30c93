"""Retries, cancelling, and nodes that go silent, forget or come back."""

from __future__ import annotations

import datetime

import pytest
from tests.unit.core.driver import Driver, node_row, task

from towline.core.commands import AttemptUpdate, LeaseShortened, Maintain, NodeDown, NodeUp, Report
from towline.core.lease import Silence
from towline.core.lifecycle import backoff_ms
from towline.errors import NotFound
from towline.model.job import Backoff, Need, Retries

QUICK = Backoff(first_ms=1000, factor=2, max_ms=3000, jitter=0)


def test_a_failure_is_retried_after_its_backoff_with_a_new_number() -> None:
    driver = Driver()
    driver.submit(a=task(retries=Retries(limit=2, backoff=QUICK)))
    for number, wait_ms in ((1, 1000), (2, 2000)):
        assert driver.starts() == [f"j1-0-0-{number}"]
        driver.exit(f"j1-0-0-{number}", code=7)
        assert driver.pool.next_wakeup_ms() is not None
        driver.tick(wait_ms - 10)
        assert driver.starts() == []
        driver.tick(20)
    driver.exit("j1-0-0-3", code=7)
    assert driver.job_row().state == "failed"
    assert driver.element().failures == 2


def test_numbers_of_a_node_that_no_store_could_keep_are_bounded() -> None:
    driver = Driver()
    driver.submit(a=task())
    most = 2**64 - 1
    driver.report("j1-0-0-1", "running", started_at=most)
    times = {"started_at": most, "finished_at": most}
    counts = {"exit_code": most, "signal": most, "peak_memory_bytes": most, "cpu_ms": -1}
    driver.report("j1-0-0-1", reason="exited", **times, **counts)
    row = driver.table.attempts["j1", 0, 0, 1]
    assert (row.peak_memory_bytes, row.exit_code, row.signal) == (2**63 - 1, 2**31 - 1, 2**31 - 1)
    assert row.cpu_ms is None
    for at_ms in (row.started_at, row.finished_at):
        assert datetime.datetime.fromtimestamp(at_ms // 1000, datetime.UTC).year == 9999
    assert driver.element().exit_code == 2**31 - 1


def test_retries_name_the_reasons_that_they_are_for() -> None:
    driver = Driver()
    driver.submit(a=task(retries=Retries(limit=3, on=("oom_killed",), backoff=QUICK)))
    driver.exit("j1-0-0-1", code=1)
    assert driver.job_row().state == "failed"


def test_a_retry_stands_before_the_rest_of_its_array() -> None:
    driver = Driver(node_row(cpu_milli=500))
    driver.submit(a=task(size=5, retries=Retries(limit=1, backoff=QUICK)))
    driver.exit("j1-0-0-1", code=1)
    driver.tick(1500)
    driver.exit("j1-0-1-1")
    assert driver.starts() == ["j1-0-0-1", "j1-0-1-1", "j1-0-0-2"]


def test_backoff_is_capped_and_its_jitter_is_drawn_from_the_attempt() -> None:
    backoff = Backoff(first_ms=1000, factor=10, max_ms=5000, jitter=0.5)
    waits = {backoff_ms(backoff, 400, f"j-0-{index}-1") for index in range(50)}
    assert len(waits) > 40
    assert all(2500 <= wait <= 7500 for wait in waits)
    assert backoff_ms(backoff, 1, "x") == backoff_ms(backoff, 1, "x")


def test_cancelling_ends_what_is_queued_in_one_change_and_stops_what_runs() -> None:
    driver = Driver()
    driver.submit(a=task(size=1_000_000), b=task("a"))
    events = len(driver.table.events)
    driver.cancel()
    ranges = [(row.lo, row.hi, row.state) for row in driver.table.ranges.values()]
    assert ranges == [(4, 999_999, "cancelled"), (0, 0, "cancelled")]
    assert len(driver.table.events) - events == 4
    stops = driver.stops()
    assert [stop.grace_ms for stop in stops] == [10_000] * 4
    for stop in stops:
        driver.report(stop.attempt, reason="cancelled", signal=15)
    assert driver.job_row().state == "cancelled"
    with pytest.raises(NotFound):
        driver.cancel()


def test_a_kill_leaves_out_the_grace_and_an_element_can_be_cancelled_alone() -> None:
    driver = Driver()
    driver.submit(a=task(size=8), b=task(Need(task="a", each=True), size=8))
    driver.cancel(task="a", index=6)
    driver.cancel(task="a", index=1, kill=True)
    assert [(stop.attempt, stop.grace_ms) for stop in driver.stops()] == [("j1-0-1-1", 0)]
    driver.report("j1-0-1-1", reason="cancelled", signal=9)
    assert driver.task_row(1).skipped == 2
    driver.exit_all()
    assert (driver.task_row().succeeded, driver.task_row().cancelled) == (6, 2)
    assert driver.job_row().state == "cancelled"
    with pytest.raises(NotFound):
        driver.cancel(task="nothing")


def test_a_cancelled_attempt_that_had_succeeded_has_succeeded() -> None:
    driver = Driver()
    driver.submit(a=task(retries=Retries(limit=5)))
    driver.cancel()
    driver.exit("j1-0-0-1")
    assert driver.job_row().state == "succeeded"


def test_a_stop_wish_leaves_no_retry() -> None:
    driver = Driver()
    driver.submit(a=task(retries=Retries(limit=5)))
    driver.cancel()
    driver.exit("j1-0-0-1", code=2)
    assert (driver.job_row().state, driver.element().reason) == ("cancelled", "exited")


def test_a_silent_node_is_lost_after_25_s_and_its_work_is_placed_elsewhere() -> None:
    driver = Driver(node_row("n1"), node_row("n2", cpu_milli=500))
    driver.submit(a=task(size=4))
    assert len(driver.starts()) == 4
    here = [row.index for row in driver.table.attempts.values() if row.node == "n1"]
    driver.step(NodeDown(node="n1"))
    for _ in range(12):
        driver.pool.heard("n2", driver.now_ms)
        driver.tick(2000)
    assert driver.table.nodes["n1"].state == "ready"
    driver.pool.heard("n2", driver.now_ms)
    driver.tick(2000)
    assert driver.table.nodes["n1"].state == "lost"
    lost = [row.index for row in driver.table.attempts.values() if row.state == "lost"]
    assert lost == here == [0, 1, 2, 3]
    assert driver.starts() == ["j1-0-0-2"]
    driver.exit("j1-0-0-2", node="n2")
    assert driver.starts() == ["j1-0-1-2"]


def test_a_pause_of_the_leader_is_not_a_silence_of_its_nodes() -> None:
    driver = Driver()
    driver.tick(60_000)
    assert driver.pool.nodes_view()[0].state == "ready"
    driver.tick(2_000)
    assert driver.pool.nodes_view()[0].state == "ready"


def lose_node(driver: Driver) -> None:
    driver.step(NodeDown(node="n1"))
    for _ in range(14):
        driver.tick(2_000)


def test_a_node_that_returns_while_its_element_is_queued_gets_its_attempt_back() -> None:
    driver = Driver()
    driver.submit(a=task())
    driver.report("j1-0-0-1", "running", started_at=5)
    lose_node(driver)
    assert (driver.element().state, driver.element().losses) == ("queued", 1)
    driver.join(node_row(), AttemptUpdate(attempt="j1-0-0-1", state="running"))
    assert (driver.element().state, driver.element().losses) == ("active", 0)
    assert driver.starts() == ["j1-0-0-1"]
    driver.exit("j1-0-0-1")
    assert driver.job_row().state == "succeeded"


def test_a_result_that_comes_with_the_returning_node_counts_if_nothing_newer_stands() -> None:
    driver = Driver()
    driver.submit(a=task())
    lose_node(driver)
    end = AttemptUpdate(attempt="j1-0-0-1", state="finished", reason="exited", exit_code=0)
    assert driver.join(node_row(), end) == ("j1-0-0-1",)
    assert driver.job_row().state == "succeeded"


def test_a_late_result_is_refused_once_a_newer_attempt_stands() -> None:
    driver = Driver(node_row("n1"), node_row("n2"))
    driver.submit(a=task())
    first = driver.starts()[0]
    node = driver.table.attempts[("j1", 0, 0, 1)].node
    other = "n2" if node == "n1" else "n1"
    driver.step(NodeDown(node=node))
    for _ in range(14):
        driver.pool.heard(other, driver.now_ms)
        driver.tick(2_000)
    assert driver.starts() == ["j1-0-0-2"]
    end = AttemptUpdate(attempt=first, state="finished", reason="exited", exit_code=0)
    assert driver.join(node_row(node), end) == (first,)
    assert driver.element().state == "active"
    driver.exit("j1-0-0-2", code=4, node=other)
    assert driver.element().exit_code == 4


def test_a_node_with_another_journal_has_lost_what_it_ran() -> None:
    driver = Driver()
    driver.submit(a=task(size=2, retries=Retries(lost=0)))
    driver.report("j1-0-0-1", "running")
    driver.join(node_row(instance="i2"))
    assert (driver.job_row().state, driver.element().reason) == ("failed", "supervision_lost")


def test_an_order_that_never_arrived_is_given_again_and_a_running_one_unknown_is_lost() -> None:
    driver = Driver()
    driver.submit(a=task(size=2))
    driver.report("j1-0-1-1", "running")
    driver.starts()
    driver.join(node_row())
    assert driver.starts() == ["j1-0-0-1", "j1-0-1-2"]


def test_a_wish_to_stop_is_repeated_and_what_never_arrived_is_cancelled() -> None:
    driver = Driver()
    driver.submit(a=task(size=2))
    driver.report("j1-0-1-1", "running")
    driver.cancel()
    driver.stops()
    driver.join(node_row(), AttemptUpdate(attempt="j1-0-1-1", state="running"))
    assert [stop.attempt for stop in driver.stops()] == ["j1-0-1-1"]
    assert driver.element(0).state == "cancelled"


@pytest.mark.parametrize("policy", ["stop", "wait"])
def test_stop_and_wait_are_not_placed_elsewhere_while_the_node_is_away(policy: str) -> None:
    driver = Driver(node_row("n1"), node_row("n2"))
    driver.submit(a=task(on_disconnect=policy))
    node = driver.table.attempts[("j1", 0, 0, 1)].node
    other = "n2" if node == "n1" else "n1"
    driver.starts()
    driver.step(NodeDown(node=node))
    for _ in range(14):
        driver.pool.heard(other, driver.now_ms)
        driver.tick(2_000)
    assert driver.starts() == []
    driver.step(NodeUp(node=node_row(node), known=(AttemptUpdate(attempt="j1-0-0-1", state="running"),)))
    driver.exit("j1-0-0-1", node=node)
    assert driver.job_row().state == "succeeded"


LEASED = Silence(lost_after_ms=25_000, keep_ms=4_000, leased=True)


@pytest.fixture
def cut_off() -> tuple[Driver, str, str]:
    """A pool under whose first node one element of each policy runs, its last heartbeat just heard."""
    driver = Driver(node_row("n1", cpu_milli=1500), silence=LEASED)
    driver.submit(
        keep=task(on_disconnect="keep"), stop=task(on_disconnect="stop"), wait=task(on_disconnect="wait")
    )
    for position in range(3):
        driver.report(f"j1-{position}-0-1", "running", node="n1")
    driver.join(node_row("n2", cpu_milli=1500))
    driver.starts()
    driver.pool.heard("n1", driver.now_ms)
    return driver, "n1", "n2"


def silence(driver: Driver, until_ms: int, heard: str) -> list[str]:
    """What is placed by so long after n1's last heartbeat, where only the other node is heard."""
    begun_ms = driver.pool.state.nodes["n1"].heard_at
    while driver.now_ms < begun_ms + until_ms:
        driver.pool.heard(heard, driver.now_ms)
        driver.tick(min(1_000, begun_ms + until_ms - driver.now_ms))
    return driver.starts()


def test_each_policy_has_its_own_patience(cut_off: tuple[Driver, str, str]) -> None:
    driver, _, other = cut_off
    assert silence(driver, 3_000, other) == []
    assert silence(driver, 6_000, other) == ["j1-0-0-2"]
    assert silence(driver, 24_999, other) == []
    assert silence(driver, 28_000, other) == ["j1-1-0-2"]
    assert silence(driver, 90_000, other) == []
    assert driver.table.attempts[("j1", 1, 0, 1)].reason == "node_lost"
    assert driver.table.attempts[("j1", 2, 0, 1)].state == "running"


def test_a_new_leader_counts_from_its_takeover(cut_off: tuple[Driver, str, str]) -> None:
    driver, _, other = cut_off
    silence(driver, 20_000, other)
    driver.reload()
    driver.join(node_row(other, cpu_milli=1500), AttemptUpdate(attempt="j1-0-0-2", state="running"))
    driver.starts()
    assert silence(driver, 24_000, other) == []
    assert silence(driver, 28_000, other) == ["j1-1-0-2"]


def test_a_lost_node_is_not_answered_until_it_has_said_what_it_has(cut_off: tuple[Driver, str, str]) -> None:
    driver, node, other = cut_off
    silence(driver, 6_000, other)
    assert not driver.pool.heard(node, driver.now_ms)
    known = AttemptUpdate(attempt="j1-1-0-1", state="running")
    driver.join(node_row(node, cpu_milli=1500), known, AttemptUpdate(attempt="j1-2-0-1", state="running"))
    assert driver.pool.heard(node, driver.now_ms)
    assert driver.table.attempts[("j1", 1, 0, 1)].state == "running"  # its lease has not ended yet


def test_what_ended_with_its_lease_is_tried_again_as_lost(cut_off: tuple[Driver, str, str]) -> None:
    driver, node, _ = cut_off
    update = AttemptUpdate(attempt="j1-1-0-1", state="lost", reason="lease_expired")
    driver.step(Report(node=node, updates=(update,)))
    assert driver.starts() == ["j1-1-0-2"]
    assert driver.element(0, task=1).losses == 1


def test_under_stop_nothing_goes_to_a_node_that_cannot_end_it_with_its_lease() -> None:
    """Such as one whose agent is of a version before node leases."""
    driver = Driver(node_row("old", protects=()), silence=LEASED)
    driver.submit(stop=task(on_disconnect="stop"), keep=task())
    assert driver.starts() == ["j1-1-0-1"]
    why = driver.pool.explain("j1", "stop", 0)
    assert "by a node lease, as on_disconnect: stop needs" in str(why)
    driver.join(node_row("new"))
    driver.tick(1)
    assert driver.starts() == ["j1-0-0-1"]
    alone = Driver(node_row("old", protects=()))
    alone.submit(stop=task(on_disconnect="stop"))
    assert alone.starts() == ["j1-0-0-1"], "one machine alone has no lease"


def test_a_longer_lease_of_a_server_that_stops_is_waited_for(cut_off: tuple[Driver, str, str]) -> None:
    """By the next leader too, which counts from its takeover."""
    driver, _, other = cut_off
    assert driver.step(Maintain(lease_ms=60_000)) == ("n1", "n2")
    driver.reload()
    driver.join(node_row("n2", cpu_milli=1500))
    assert silence(driver, 84_000, other) == ["j1-0-0-2"]
    assert silence(driver, 87_000, other) == ["j1-1-0-2"]


def test_a_lease_that_is_short_again_ends_as_usual(cut_off: tuple[Driver, str, str]) -> None:
    driver, node, other = cut_off
    driver.step(Maintain(lease_ms=60_000))
    driver.reload()
    driver.join(node_row("n2", cpu_milli=1500))
    driver.join(node_row("n1", cpu_milli=1500), AttemptUpdate(attempt="j1-1-0-1", state="running"))
    assert driver.pool.lease_ms("n1") == 60_000, "it has not said that it holds another one"
    driver.step(LeaseShortened(node=node))
    assert driver.pool.lease_ms("n1") == 0
    assert "j1-1-0-2" in silence(driver, 28_000, other)
