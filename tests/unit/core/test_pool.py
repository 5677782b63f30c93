"""A job's way through the pool: order, arrays, needs, ends."""

from __future__ import annotations

import pytest
from tests.unit.core.driver import SMALL, Driver, each, node_row, task

from towline.core.commands import AttemptUpdate, ForgetNode, NodeDown, NodeUp, Quarantine, Report, Submit
from towline.core.pool.submission import SEQS_A_MS
from towline.errors import NotFound
from towline.model.job import Array, JobSpec, Resources, TaskSpec


def test_one_task_is_placed_in_the_batch_of_its_submission_and_ends() -> None:
    driver = Driver()
    driver.submit(a=task())
    assert driver.starts() == ["j1-0-0-1"]
    assert driver.task_row().active == 1
    assert driver.exit("j1-0-0-1") == ("j1-0-0-1",)
    assert (driver.job_row().state, driver.task_row().succeeded) == ("succeeded", 1)
    assert driver.kinds()[1:] == [
        "job.submitted",
        "elements.assigned",
        "attempt.finished",
        "task.ended",
        "job.ended",
    ]
    assert driver.pool.state.jobs == {}


def test_a_node_holds_no_more_than_its_capacity() -> None:
    driver = Driver(node_row(cpu_milli=2000))
    driver.submit(a=task(size=10))
    assert len(driver.starts()) == 4
    assert driver.pool.nodes_view()[0].cpu_free == 0
    driver.exit("j1-0-0-1")
    assert driver.starts() == ["j1-0-4-1"]


def test_an_array_is_one_row_and_its_elements_leave_in_order() -> None:
    driver = Driver()
    driver.submit(a=task(size=1_000_000))
    assert [row.queued for row in driver.table.tasks.values()] == [999_996]
    assert len(driver.table.elements) == 4
    assert driver.starts() == [f"j1-0-{index}-1" for index in range(4)]


def test_array_indexes_start_where_the_user_says() -> None:
    driver = Driver()
    driver.submit(a=TaskSpec(runtime="process", command=("true",), array=Array(first=5, last=6)))
    assert driver.starts() == ["j1-0-5-1", "j1-0-6-1"]


def test_higher_priority_goes_first_and_smaller_work_goes_round_what_does_not_fit() -> None:
    driver = Driver(node_row(cpu_milli=1000))
    driver.submit("low", priority=10, a=task(size=4))
    driver.submit("big", priority=90, a=task(resources=Resources(cpu_milli=1500, memory_bytes=1, pids=1)))
    driver.submit("high", priority=80, a=task(size=4))
    started = driver.starts()
    assert started == ["low-0-0-1", "low-0-1-1"]
    for attempt in started:
        driver.exit(attempt)
    assert driver.starts() == ["high-0-0-1", "high-0-1-1"]


def test_a_task_starts_in_the_batch_in_which_its_last_need_succeeds() -> None:
    driver = Driver()
    driver.submit(a=task(size=2), b=task(size=1), c=task("a", "b"))
    assert driver.starts() == ["j1-0-0-1", "j1-0-1-1", "j1-1-0-1"]
    driver.exit("j1-0-0-1")
    driver.exit("j1-1-0-1")
    assert driver.starts() == []
    assert driver.task_row(2).waiting == 1
    driver.exit("j1-0-1-1")
    assert driver.starts() == ["j1-2-0-1"]


def test_what_needs_a_failed_task_is_skipped_and_the_other_branch_goes_on() -> None:
    driver = Driver()
    driver.submit(a=task(), b=task("a", size=3), c=task("b"), d=task(), e=task("d"))
    driver.exit("j1-0-0-1", code=3)
    assert driver.task_row(1).skipped == 3
    assert driver.task_row(2).skipped == 1
    assert driver.job_row().state == "running"
    driver.exit("j1-3-0-1")
    driver.exit("j1-4-0-1")
    row = driver.job_row()
    assert (row.state, row.reason, row.message) == ("failed", "task_failed", "a: exited with code 3")
    assert driver.element().message == "exited with code 3"


def test_each_goes_element_by_element() -> None:
    driver = Driver(node_row(cpu_milli=1500))
    driver.submit(a=task(size=3), b=task(each("a"), size=3), c=task("b"))
    assert driver.starts() == ["j1-0-0-1", "j1-0-1-1", "j1-0-2-1"]
    driver.exit("j1-0-2-1")
    assert driver.starts() == ["j1-1-2-1"]
    driver.exit("j1-0-0-1", code=1)
    assert driver.starts() == []
    assert (driver.task_row(1).skipped, driver.task_row(2).skipped) == (1, 1)
    driver.exit("j1-0-1-1")
    assert driver.starts() == ["j1-1-1-1"]
    driver.exit("j1-1-1-1")
    driver.exit("j1-1-2-1")
    assert driver.job_row().state == "failed"


def test_a_chain_of_thousands_is_skipped_without_recursion() -> None:
    driver = Driver()
    tasks = {"t0": task()}
    tasks |= {f"t{at}": task(f"t{at - 1}") for at in range(1, 3000)}
    driver.submit(**tasks)
    driver.exit("j1-0-0-1", code=1)
    assert driver.job_row().state == "failed"
    assert driver.task_row(2999).skipped == 1


def test_the_same_submission_twice_is_one_job() -> None:
    driver = Driver()
    spec = JobSpec(name="a", tasks={"a": task()})
    submit = Submit(job="j1", namespace="default", spec=spec)
    driver.step(submit, submit)
    assert len(driver.starts()) == 1


def test_a_report_of_an_unknown_node_is_refused() -> None:
    driver = Driver()
    with pytest.raises(NotFound, match="no node 'other'"):
        driver.step(Report(node="other", updates=()))


@pytest.mark.parametrize("attempt", ["j1-0-0-9", "other-0-0-1", "nonsense", "j1-7-0-1", "j1-x-0-1"])
def test_a_running_attempt_that_nobody_knows_is_stopped(attempt: str) -> None:
    driver = Driver()
    driver.submit(a=task())
    driver.report(attempt, "running")
    assert [(stop.attempt, stop.reason, stop.grace_ms) for stop in driver.stops()] == [
        (attempt, "superseded", 0)
    ]


def test_a_second_end_of_one_attempt_changes_nothing() -> None:
    driver = Driver()
    driver.submit(a=task())
    driver.exit("j1-0-0-1")
    events = len(driver.table.events)
    assert driver.exit("j1-0-0-1", code=1) == ("j1-0-0-1",)
    assert (driver.job_row().state, len(driver.table.events)) == ("succeeded", events)


def test_a_reloaded_pool_goes_on_where_it_was() -> None:
    driver = Driver()
    driver.submit(a=task(size=20), b=task(each("a"), size=20), c=task("b"))
    for attempt in driver.starts()[:2]:
        driver.exit(attempt)
    driver.reload()
    row = driver.instances["n1"]
    known = [
        AttemptUpdate(attempt=f"{key[0]}-{key[1]}-{key[2]}-{key[3]}", state="running")
        for key in driver.pool.state.attempts
    ]
    driver.starts()
    driver.step(NodeUp(node=row, known=tuple(known)))
    for update in known:
        driver.exit(update.attempt)
    driver.exit_all()
    assert driver.job_row().state == "succeeded"
    assert all(row.number == 1 for row in driver.table.elements.values())


def test_a_quarantined_job_starts_nothing_more_and_what_runs_is_recorded() -> None:
    driver = Driver()
    driver.submit(a=task(size=10))
    started = driver.starts()
    driver.step(Quarantine(job="j1", message="division by zero"))
    driver.exit(started[0])
    assert driver.starts() == []
    assert driver.task_row().succeeded == 1
    driver.reload()
    driver.join(driver.instances["n1"], AttemptUpdate(attempt=started[1], state="running"))
    assert driver.starts() == started[2:]
    driver.cancel()
    for attempt in started[1:]:
        driver.report(attempt, reason="cancelled", exit_code=143)
    assert driver.job_row().state == "cancelled"


def test_a_submission_that_failed_inside_is_visible_as_a_quarantined_job() -> None:
    driver = Driver()
    spec = JobSpec(name="poison", tasks={"a": task()})
    submit = Submit(job="bad", namespace="default", spec=spec)
    driver.step(Quarantine(job="bad", message="broken", submit=submit))
    row = driver.job_row("bad")
    assert (row.state, row.reason, row.name) == ("quarantined", "internal_error", "poison")
    driver.cancel("bad")
    assert driver.job_row("bad").state == "cancelled"


def test_a_pass_asks_each_shape_once() -> None:
    driver = Driver(node_row(cpu_milli=500))
    for number in range(50):
        driver.submit(f"j{number}", a=task())
    assert driver.starts() == ["j0-0-0-1"]
    backlog = driver.pool.state.backlog
    assert len(backlog.shapes) == len(backlog.closed) == 1
    assert SMALL.cpu_milli == 500


def test_a_tasks_image_stays_what_it_was_first_resolved_to() -> None:
    driver = Driver()
    driver.submit(a=task(size=2))
    driver.report("j1-0-0-1", "running", image_digest="sha256:one")
    driver.report("j1-0-1-1", "running", image_digest="sha256:two")
    assert driver.task_row().image_digest == "sha256:one"
    driver.reload()
    assert driver.pool.state.jobs["j1"].tasks[0].image_digest == "sha256:one"


def test_jobs_of_all_pools_stand_in_one_order_by_time() -> None:
    driver = Driver()
    driver.step(*(_submit(f"a{at}") for at in range(3)))
    first = driver.now_ms * SEQS_A_MS
    assert [driver.job_row(f"a{at}").seq for at in range(3)] == [first, first + 1, first + 2]
    driver.step(_submit("b"), after_ms=1)
    assert driver.job_row("b").seq == first + SEQS_A_MS
    driver.now_ms -= 60_000  # the next leader's clock is behind
    driver.reload()
    driver.step(_submit("c"))
    assert driver.job_row("c").seq == first + SEQS_A_MS + 1
    assert {driver.job_row(job).pool for job in ("a0", "b", "c")} == {"default"}


def test_more_jobs_than_a_millisecond_has_numbers_keep_their_order() -> None:
    driver = Driver()
    count = SEQS_A_MS + 10
    driver.step(*(_submit(f"a{at}") for at in range(count)))
    driver.step(_submit("b"), after_ms=1)
    seqs = [driver.job_row(f"a{at}").seq for at in range(count)] + [driver.job_row("b").seq]
    assert seqs == sorted(set(seqs))


def _submit(job: str) -> Submit:
    return Submit(job=job, namespace="default", spec=JobSpec(name="j", tasks={"a": task()}))


def test_the_numbers_of_jobs_are_exact_in_floats_for_long() -> None:
    year_2248_ms = (2248 - 1970) * 31_556_952_000
    assert year_2248_ms * SEQS_A_MS < 2**53 < (year_2248_ms + 2 * 31_556_952_000) * SEQS_A_MS


def test_what_was_active_on_another_pools_node_is_lost_in_time() -> None:
    """The store gives a node to one pool: another one that thought it had it loads without it."""
    driver = Driver(node_row("n1"), node_row("n2"))
    driver.submit(a=task(size=2, resources=Resources(cpu_milli=1500, memory_bytes=1, pids=1)))
    assert len(driver.starts()) == 2
    del driver.table.nodes[driver.table.attempts["j1", 0, 0, 1].node]
    driver.reload()
    for _ in range(15):
        driver.tick(2_000)
    assert driver.table.attempts["j1", 0, 0, 1].state == "lost"
    driver.reload()  # a lost attempt of a node that is not there is no burden


def test_a_lost_attempt_of_a_node_that_has_left_the_pool_does_not_come_back() -> None:
    driver = Driver(node_row("n1", cpu_milli=500))
    driver.submit(a=task())
    assert driver.starts() == ["j1-0-0-1"]
    driver.step(NodeDown(node="n1"))
    driver.step(ForgetNode(node="n1"))
    assert driver.element().state == "queued"
    driver.reload()
    del driver.table.nodes["n1"]  # as where it has joined another pool
    driver.reload()
    driver.join(node_row("n2", cpu_milli=500))
    assert driver.starts() == ["j1-0-0-2"]
