"""Parts of jobs that run again: which, with which numbers, and what it does to everything around them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.unit.core.driver import Driver, each, node_row, task

from towline.core.commands import Cancel, Quarantine, Retry, SetQueue, Submit
from towline.core.pool import state as pool_state
from towline.errors import Conflict, NotFound, Outdated
from towline.model.job import JobSpec, Limit, Retries


def ended(driver: Driver) -> None:
    driver.exit_all()
    assert driver.pool.state.jobs == {}


def fail(driver: Driver, *indexes: int) -> None:
    """Let everything end that is ordered: these indexes with code 1."""
    while started := driver.starts():
        for attempt in started:
            driver.exit(attempt, int(int(attempt.split("-")[2]) in indexes))


def test_what_failed_runs_again_and_what_succeeded_does_not() -> None:
    driver = Driver(node_row())
    driver.submit(a=task(size=4))
    fail(driver, 1, 3)
    assert driver.job_row().state == "failed"
    assert driver.retry() == ("a.1", "a.3")
    assert driver.starts() == ["j1-0-1-2", "j1-0-3-2"]
    row = driver.job_row()
    assert (row.state, row.reason, row.message, row.ended_at) == ("running", None, None, None)
    driver.exit("j1-0-1-2")
    driver.exit("j1-0-3-2")
    assert driver.job_row().state == "succeeded"
    assert driver.kinds().count("job.retried") == 1
    assert driver.kinds().count("job.ended") == 2
    assert [event.data for event in driver.table.events if event.kind == "elements.retried"] == [
        {"task": "a", "ranges": [[1, 1], [3, 3]]}
    ]


def test_what_was_skipped_because_of_it_waits_again() -> None:
    driver = Driver(node_row())
    driver.submit(prepare=task(), work=task("prepare", size=1000), report=task("work"))
    fail(driver, 0)
    assert (driver.task_row(1).skipped, driver.task_row(2).skipped) == (1000, 1)
    assert driver.retry() == ("prepare", "work.0-999", "report")
    assert driver.table.ranges == {}
    assert (driver.task_row(1).waiting, driver.task_row(1).next) == (1000, 0)
    driver.reload()
    driver.join(node_row())
    ended(driver)
    assert driver.job_row().state == "succeeded"
    assert driver.task_row(1).succeeded == 1000


def test_each_element_goes_on_with_its_own_need() -> None:
    driver = Driver(node_row())
    driver.submit(a=task(size=5), b=task(each("a"), size=5), c=task("b"))
    fail(driver, 2, 3)
    assert driver.retry("j1", ("a", 2)) == ("a.2", "b.2")
    assert driver.task_row(2).skipped == 1, "b.3 stays skipped, and so does what needs all of b"
    assert driver.job_row().message == "a.3: exited with code 1"
    fail(driver)
    assert driver.job_row().state == "failed"
    assert driver.retry() == ("a.3", "b.3", "c")
    ended(driver)
    assert driver.job_row().state == "succeeded"


def test_a_running_job_takes_back_what_failed_so_far() -> None:
    driver = Driver(node_row(cpu_milli=1000))
    driver.submit(a=task(size=4), b=task("a"))
    first, second = driver.starts()
    driver.exit(first, 1)
    assert driver.task_row(1).skipped == 1
    assert driver.retry() == ("a.0", "b")
    driver.exit(second)
    driver.reload()
    driver.join(node_row(cpu_milli=1000))
    ended(driver)
    assert driver.job_row().state == "succeeded"
    assert driver.element(0).number == 2


def test_a_cancelled_job_runs_again_with_what_had_been_placed_and_what_had_not() -> None:
    driver = Driver(node_row(cpu_milli=1000))
    driver.submit(a=task(size=10))
    first, second = driver.starts()
    driver.exit(first)
    driver.step(Cancel(job="j1"))
    for attempt in [second, *driver.starts()]:
        driver.report(attempt, reason="cancelled")
    assert driver.job_row().state == "cancelled"
    with pytest.raises(Conflict, match="leave out --failed"):
        driver.retry(failed=True)
    assert driver.retry() == ("a.1-9",)
    assert not driver.job_row().cancel_requested
    driver.reload()
    driver.join(node_row(cpu_milli=1000))
    ended(driver)
    assert driver.job_row().state == "succeeded"


def test_elements_before_next_come_back_between_others() -> None:
    """3 was cancelled while it waited, and those behind it ran: it gets a row, since next goes over none."""
    driver = Driver(node_row(cpu_milli=500))
    driver.submit(a=task(size=6))
    driver.cancel(task="a", index=3)
    fail(driver, 4)
    assert driver.retry("j1", ("a", 3)) == ("a.3",)
    assert (driver.task_row().next, driver.task_row().active) == (6, 1)
    driver.reload()
    driver.join(node_row(cpu_milli=500))
    assert set(driver.starts()) == {"j1-0-3-1"}
    assert driver.retry() == ("a.4",)
    driver.exit("j1-0-3-1")
    ended(driver)
    assert driver.job_row().state == "succeeded"


def test_retries_count_anew_and_numbers_go_on() -> None:
    driver = Driver(node_row())
    driver.submit(a=task(retries=Retries(limit=1)))
    for number in (1, 2):
        driver.exit(f"j1-0-0-{number}", 1)
        driver.tick(60_000)
    assert driver.job_row().state == "failed"
    driver.retry()
    driver.exit("j1-0-0-3", 1)
    assert driver.element().state == "queued"
    driver.tick(60_000)
    driver.exit("j1-0-0-4", 1)
    assert driver.job_row().state == "failed"
    assert sorted(number for _, _, _, number in driver.table.attempts) == [1, 2, 3, 4]


def test_a_lost_attempt_of_what_runs_again_counts_for_nothing() -> None:
    driver = Driver(node_row(), node_row("n2"))
    driver.submit(a=task(retries=Retries(lost=0)))
    (attempt,) = driver.starts()
    node = driver.table.attempts[("j1", 0, 0, 1)].node
    driver.report(attempt, "lost", node=node)
    assert driver.job_row().state == "failed"
    driver.step(SetQueue(name="default", max_active=0))  # it stays queued
    driver.retry()
    driver.reload()
    driver.exit(attempt, node=node)
    assert driver.element().state == "queued"


def test_what_is_named_must_be_able_to_run_again() -> None:
    driver = Driver(node_row())
    driver.submit(a=task(size=3), b=task("a"), c=task())
    fail(driver, 1)
    for named, error, words in (
        (("a", 0), Conflict, "a.0 has succeeded"),
        (("c", None), Conflict, "c has succeeded"),
        (("b", None), Conflict, "b cannot run again by itself"),
        (("a", 7), NotFound, "its indexes are 0 to 2"),
        (("x", None), NotFound, "no task 'x'"),
    ):
        with pytest.raises(error, match=words):
            driver.retry("j1", named)
        assert driver.pool.state.jobs == {}
        assert driver.pool.state.batch.events == []
    assert driver.retry("j1", ("a", None)) == ("a.1", "b")
    assert driver.retry("j1", ("a", 1)) == (), "it runs again already"


def test_nothing_runs_again_of_a_success_or_of_what_was_set_aside() -> None:
    driver = Driver(node_row())
    driver.submit(a=task())
    ended(driver)
    with pytest.raises(Conflict, match="has succeeded"):
        driver.retry()
    driver.submit("j2", a=task(size=2))
    driver.step(Quarantine(job="j2", message="broken"))
    with pytest.raises(Conflict, match="set aside"):
        driver.retry("j2")
    driver.exit("j2-0-0-1")
    driver.exit("j2-0-1-1", 1)
    driver.cancel("j2")
    assert driver.job_row("j2").state == "cancelled"


def test_a_job_that_was_set_aside_when_it_was_submitted_never_was_one() -> None:
    driver = Driver(node_row())
    submit = Submit(job="j1", namespace="default", spec=JobSpec(name="x", tasks={"a": task()}))
    driver.step(Quarantine(job="j1", message="broken", submit=submit))
    driver.step(Cancel(job="j1"))
    assert driver.job_row().state == "cancelled"
    with pytest.raises(Conflict, match="submit it again"):
        driver.retry()


def test_a_job_that_was_set_aside_and_cancelled_may_have_another_go() -> None:
    driver = Driver(node_row(cpu_milli=500))
    driver.submit(a=task(size=3), b=task(each("a"), size=3))
    driver.step(Quarantine(job="j1", message="broken"))
    driver.exit("j1-0-0-1", 1)
    driver.step(Cancel(job="j1"))
    assert driver.job_row().state == "cancelled"
    assert driver.retry() == ("a.0-2", "b.0-2")
    ended(driver)
    assert driver.job_row().state == "succeeded"


def test_a_job_that_is_being_cancelled_ends_first() -> None:
    driver = Driver(node_row())
    driver.submit(a=task(size=2))
    driver.exit("j1-0-0-1", 1)
    driver.cancel()
    with pytest.raises(Conflict, match="is being cancelled"):
        driver.retry()


def test_a_record_that_is_older_than_an_end_or_a_repair_is_refused() -> None:
    driver = Driver(node_row())
    driver.submit(a=task(size=2))
    driver.exit("j1-0-0-1", 1)
    early = driver.table.record("j1")
    driver.exit("j1-0-1-1", 1)
    with pytest.raises(Outdated):
        driver.step(Retry(job="j1", record=early))
    late = driver.table.record("j1")
    driver.retry()
    for attempt in driver.starts():
        driver.exit(attempt, 1)
    with pytest.raises(Outdated):
        driver.step(Retry(job="j1", record=late))
    with pytest.raises(Outdated):
        driver.step(Retry(job="j1", record=replace(driver.table.record("j1"), term=7)))
    assert driver.retry() == ("a.0-1",)


def test_a_record_is_checked_also_where_many_jobs_have_ended_since(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_state, "ENDED_JOBS_KEPT", 1)
    driver = Driver(node_row())
    driver.submit(a=task())
    fail(driver, 0)
    old = driver.table.record("j1")
    driver.retry()
    fail(driver, 0)
    for at in range(2, 5):
        driver.submit(f"j{at}", a=task())
        driver.exit_all()
    with pytest.raises(Outdated):
        driver.step(Retry(job="j1", record=old))
    assert driver.retry() == ("a",)


def test_a_key_takes_effect_once() -> None:
    driver = Driver(node_row())
    driver.submit(a=task())
    fail(driver, 0)
    command = Retry(job="j1", record=driver.table.record("j1"), key="k", digest="d")
    assert driver.step(command) == ("a",)
    fail(driver, 0)
    again = replace(driver.table.record("j1"), taken="d")
    assert driver.step(replace(command, record=again)) == ()
    with pytest.raises(Conflict, match="used for another request"):
        driver.step(replace(command, record=replace(again, taken="other")))


def test_a_queue_that_is_gone_has_to_be_made_again() -> None:
    driver = Driver(node_row())
    driver.step(SetQueue(name="night"))
    driver.submit(queue="night", a=task())
    fail(driver, 0)
    record = driver.table.record("j1")
    record.job.queue = "gone"
    with pytest.raises(Conflict, match="tow queue create gone"):
        driver.step(Retry(job="j1", record=record))


def test_keys_of_limits_are_held_again() -> None:
    driver = Driver(node_row())
    driver.submit(a=task(size=3, limit=Limit(key="k", max=1)))
    fail(driver, 0, 1, 2)
    driver.submit("j2", a=task(size=3, limit=Limit(key="k", max=2)))
    driver.retry()
    assert len(driver.starts()) == 2
    fail(driver)
    driver.exit("j2-0-0-1")
    driver.exit("j2-0-1-1")
    ended(driver)
    assert {driver.job_row(job).state for job in ("j1", "j2")} == {"succeeded"}


def test_a_submission_that_is_repeated_meanwhile_makes_no_second_job() -> None:
    driver = Driver(node_row())
    driver.submit(a=task())
    fail(driver, 0)
    driver.retry()
    driver.step(Submit(job="j1", namespace="default", spec=JobSpec(name="x", tasks={"a": task()})))
    ended(driver)
    driver.step(Submit(job="j1", namespace="default", spec=JobSpec(name="x", tasks={"a": task()})))
    assert driver.pool.state.jobs == {}


def test_a_job_whose_history_is_being_deleted_stays_history() -> None:
    driver = Driver(node_row())
    driver.submit(a=task(size=3))
    fail(driver, 1)
    record = driver.table.record("j1")
    record.ended = record.ended[1:]
    with pytest.raises(NotFound, match="being deleted"):
        driver.step(Retry(job="j1", record=record))


def test_a_long_chain_comes_back_whole() -> None:
    driver = Driver(node_row())
    names = [f"t{at}" for at in range(300)]
    driver.submit(**{name: task(*([names[at - 1]] if at else [])) for at, name in enumerate(names)})
    fail(driver, 0)
    assert driver.retry() == tuple(names)
    ended(driver)
    assert driver.job_row().state == "succeeded"


def test_next_goes_back_over_what_was_cancelled_before_anything_was_placed() -> None:
    driver = Driver(node_row())
    driver.submit(a=task(), b=task("a", size=10))
    driver.cancel(task="b", index=3)
    driver.cancel(task="b", index=7)
    fail(driver, 0)
    assert driver.retry(failed=True) == ("a", "b.0-2", "b.4-6", "b.8-9")
    assert (driver.task_row(1).next, driver.task_row(1).waiting) == (0, 8)
    driver.reload()
    driver.join(node_row())
    ended(driver)
    assert driver.job_row().state == "cancelled"
    assert driver.retry() == ("b.3", "b.7")
    ended(driver)
    assert driver.job_row().state == "succeeded"


def test_what_queued_before_its_end_is_no_second_entry_of_what_runs_again() -> None:
    """The queue may still hold the entry that the task had before its job ended: of the same key."""
    driver = Driver(node_row(cpu_milli=500))
    driver.submit("j0", a=task())  # holds the node
    driver.submit("j1", a=task(size=3))
    for _ in range(3):
        driver.cancel("j1")
        assert driver.retry("j1") == ("a.0-2",)
    driver.exit("j0-0-0-1")
    ended(driver)
    assert driver.job_row("j1").state == "succeeded"


def test_a_job_of_another_pool_is_not_taken_into_this_one() -> None:
    driver = Driver(node_row())
    driver.submit(a=task())
    fail(driver, 0)
    record = driver.table.record("j1")
    with pytest.raises(NotFound, match="of the pool west"):
        driver.step(Retry(job="j1", record=replace(record, job=replace(record.job, pool="west"))))
    assert driver.pool.state.jobs == {} and driver.retry() == ("a",)
