"""Queues are made, changed and deleted by rules, and each refusal names field, value and remedy."""

from __future__ import annotations

import pytest
from tests.unit.core.driver import Driver, task

from towline.core.commands import DeleteQueue, SetPriority, SetQueue, Submit
from towline.errors import Conflict, InvalidDocument, NotFound, RequestError
from towline.model.job import JobSpec


def refused(driver: Driver, command: SetQueue | DeleteQueue | SetPriority) -> str:
    """The error's text; nothing may have changed."""
    before = driver.pool.event_no
    with pytest.raises(RequestError) as error:
        driver.step(command)
    driver.step()
    assert driver.pool.event_no == before
    return str(error.value)


def with_tree() -> Driver:
    driver = Driver()
    driver.step(SetQueue(name="lab", guaranteed={"cpu": 4000, "memory": 2**33}))
    driver.step(SetQueue(name="a", parent="lab", guaranteed={"cpu": 3000}, weight_milli=3000))
    driver.step(SetQueue(name="b", parent="lab", maximum={"cpu": 1000}, max_active=2, max_priority=60))
    return driver


def test_a_queue_is_kept_with_what_was_given() -> None:
    driver = with_tree()
    row = driver.table.queues["a"]
    assert (row.parent, row.weight_milli, row.guaranteed, row.max_priority) == (
        "lab",
        3000,
        {"cpu": 3000},
        100,
    )
    driver.step(SetQueue(name="a", weight_milli=500))
    row = driver.table.queues["a"]
    assert (row.parent, row.weight_milli, row.guaranteed) == ("lab", 500, {"cpu": 3000})
    assert driver.kinds()[-1] == "queue.changed"
    driver.reload()
    tree = driver.pool.state.queues
    assert [queue.name for queue in tree.queues["a"].path] == ["a", "lab"]
    assert list(tree.queues) == ["a", "b", "default", "lab"]


def test_what_stays_as_it_is_tells_nothing() -> None:
    driver = with_tree()
    before = driver.pool.event_no
    driver.step(SetQueue(name="a", weight_milli=3000))
    assert driver.pool.event_no == before


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (SetQueue(name="Bad Name"), ["'Bad Name'", "lower-case"]),
        (SetQueue(name="c", parent="labb"), ["parent 'labb'", "did you mean lab?"]),
        (SetQueue(name="lab", parent="a"), ["parent 'a'", "circle (a below lab)"]),
        (SetQueue(name="lab", parent="lab"), ["circle (lab)"]),
        (SetQueue(name="default", parent="lab"), ["default stays at the top"]),
        (SetQueue(name="c", parent="default"), ["takes jobs, not queues"]),
        (SetQueue(name="c", weight_milli=0), ["weight 0", "0.001"]),
        (SetQueue(name="c", max_priority=101), ["max_priority 101", "0 to 100"]),
        (SetQueue(name="c", max_active=-1), ["max_active -1"]),
        (SetQueue(name="c", maximum={"disk": 1}), ["maximum.disk", "cpu, memory, gpu, pids"]),
        (SetQueue(name="c", guaranteed={"cpu": -1}), ["guaranteed.cpu -1"]),
        (
            SetQueue(name="c", guaranteed={"cpu": 2000}, maximum={"cpu": 1000}),
            ["maximum.cpu 1 CPU", "2 CPUs"],
        ),
        (SetQueue(name="b", guaranteed={"cpu": 500, "gpu": 1000}), ["guaranteed.gpu", "1 GPU", "'lab'"]),
        (SetQueue(name="c", parent="lab", guaranteed={"cpu": 1500}), ["guaranteed.cpu", "4.5 CPUs in all"]),
        (SetQueue(name="lab", guaranteed={"cpu": 1000}), ["guaranteed.cpu", "3 CPUs in all", "1 CPU"]),
        (SetQueue(name="zz", only="existing"), ["no queue 'zz'", "tow queue create zz"]),
        (DeleteQueue(name="lab"), ["queues below it (a, b)"]),
        (DeleteQueue(name="default"), ["'default' stays"]),
        (DeleteQueue(name="labs"), ["did you mean lab?"]),
    ],
)
def test_refusals(command: SetQueue | DeleteQueue, words: list[str]) -> None:
    text = refused(with_tree(), command)
    assert [word for word in words if word not in text] == [], text


def test_new_only_and_existing_only() -> None:
    driver = with_tree()
    with pytest.raises(Conflict, match="tow queue set a"):
        driver.step(SetQueue(name="a", only="new"))
    with pytest.raises(NotFound):
        driver.step(SetQueue(name="c", only="existing"))
    driver.step(SetQueue(name="c", only="new"))
    driver.step(SetQueue(name="c", only="existing", max_active=7))
    assert driver.table.queues["c"].max_active == 7


def test_jobs_name_a_queue_that_takes_jobs() -> None:
    driver = with_tree()
    for queue, words in (("aa", "did you mean a"), ("lab", "name one of them: a, b")):
        with pytest.raises(InvalidDocument) as error:
            spec = JobSpec(name="x", tasks={"t": task()}, queue=queue)
            driver.step(Submit(job="j1", namespace="default", spec=spec))
        assert error.value.problems[0].where == "queue"
        assert words in str(error.value)
    assert not driver.pool.state.jobs


def test_a_queue_with_jobs_stays_until_they_have_ended() -> None:
    driver = with_tree()
    driver.step(SetQueue(name="c"))
    driver.submit(queue="c", a=task())
    assert "1 unfinished jobs" in refused(driver, DeleteQueue(name="c"))
    assert "1 unfinished jobs" in refused(driver, SetQueue(name="d", parent="c"))
    driver.exit_all()
    driver.step(DeleteQueue(name="c"))
    assert "c" not in driver.table.queues
    assert driver.kinds()[-1] == "queue.deleted"
    driver.step(SetQueue(name="c"), DeleteQueue(name="c"), SetQueue(name="c", max_active=1))
    assert driver.table.queues["c"].max_active == 1
    driver.reload()


def test_a_priority_changes_the_order_of_what_is_queued() -> None:
    driver = Driver()
    driver.submit("j1", a=task(size=6))
    driver.submit("j2", a=task(size=1))
    assert len(driver.starts()) == 4
    driver.step(SetPriority(job="j2", priority=60))
    driver.exit("j1-0-0-1")
    assert driver.starts() == ["j2-0-0-1"]
    assert driver.job_row("j2").priority == 60
    assert "job.priority_changed" in driver.kinds()
    driver.reload()


def test_a_priority_is_capped_by_its_queue() -> None:
    driver = with_tree()
    driver.step(SetQueue(name="b", maximum={"cpu": None}, max_active=None))
    driver.submit("j1", queue="b", priority=60, a=task(size=6))
    driver.submit("j2", queue="b", priority=90, a=task(size=1))
    driver.starts()
    driver.exit("j1-0-0-1")
    assert driver.starts() == ["j1-0-4-1"]  # 90 counts as 60 here, so the older one goes first
    assert "at most 60" in refused(driver, SetPriority(job="j1", priority=61))
    assert "0 to 100" in refused(driver, SetPriority(job="j1", priority=-1))
    assert "no unfinished job nope: only what waits" in refused(driver, SetPriority(job="nope", priority=1))
