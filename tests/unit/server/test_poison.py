"""Commands that break the pool: their job is set aside, and everything else goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.builders import task
from tests.unit.server.conftest import FaultyStore, Rig, node_row, report, submit_command

from towline.core.commands import AttemptUpdate, Cancel, NodeUp, Report
from towline.core.pool import Pool
from towline.core.pool import reports as core_reports
from towline.core.pool import submission as core_submission
from towline.errors import OperatorError, Unavailable
from towline.server.leader.poison import DEATHS, InHand, command_id
from towline.store.port import Reservation


@pytest.fixture
def submit_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the core: it breaks over the job named j-bad."""
    real = core_submission.submit

    def submit(pool, command):  # type: ignore[no-untyped-def]
        real(pool, command)
        assert command.job != "j-bad", "broken on purpose"

    monkeypatch.setattr(core_submission, "submit", submit)


@pytest.fixture
def finish_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the core: it breaks over the end of any attempt of the job j-bad."""
    real = core_reports.finish

    def finish(pool, node, task, attempt, update):  # type: ignore[no-untyped-def]
        real(pool, node, task, attempt, update)
        assert attempt.job != "j-bad", "broken on purpose"

    monkeypatch.setattr(core_reports, "finish", finish)


@pytest.mark.usefixtures("submit_breaks")
async def test_a_submission_that_breaks_the_pool_is_set_aside_with_its_answer(rig: Rig) -> None:
    await rig.submit("j1", a=task())
    wanted = Reservation(namespace="default", key="key-j-bad", digest="d", job="j-bad", pool="default")
    await rig.store.reserve([wanted])
    with pytest.raises(Unavailable):
        await rig.submit("j-bad", a=task())
    await rig.leader.ready.wait()
    found = await rig.store.job("j-bad")
    assert found is not None
    assert (found[0].state, found[0].reason) == ("quarantined", "internal_error")
    [stands] = await rig.store.reserve([wanted])
    assert stands.error is not None
    await rig.submit("j2", a=task())
    other = await rig.store.job("j2")
    assert other is not None
    assert other[0].state == "running"


@pytest.mark.usefixtures("finish_breaks")
async def test_a_report_that_breaks_the_pool_sets_one_job_aside_and_the_others_go_on(rig: Rig) -> None:
    await rig.node()
    await rig.submit("j-bad", a=task())
    await rig.submit("j-good", a=task())
    both = (("j-bad", 0, 0, 1), ("j-good", 0, 0, 1))
    known = report(*both).updates
    for _ in range(3):  # as an agent does: a Hello with all it knows, and the report again
        try:
            await rig.node(known=known)
            forgotten = await rig.leader.ask(Report(node="n1", updates=known))
            break
        except Unavailable:
            await rig.leader.ready.wait()
    else:
        pytest.fail("the pool broke every time")
    assert "j-good-0-0-1" in forgotten
    bad, good = await rig.store.job("j-bad"), await rig.store.job("j-good")
    assert bad is not None
    assert good is not None
    assert (bad[0].state, good[0].state) == ("quarantined", "succeeded")


async def test_a_pass_that_always_breaks_stops_the_pool_for_an_operator(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def schedule(self, now_ms):  # type: ignore[no-untyped-def]
        raise AssertionError("broken on purpose")

    monkeypatch.setattr(Pool, "schedule", schedule)
    with pytest.raises(Unavailable):
        await rig.submit("j1", a=task())
    assert rig.task is not None
    await rig.task
    assert rig.leader.stopped is not None
    with pytest.raises(OperatorError):
        await rig.submit("j1", a=task())


def test_three_deaths_in_a_row_make_a_command_poison(tmp_path: Path) -> None:
    path = tmp_path / "in-hand"
    bad, good = command_id(submit_command("j-bad", a=task())), command_id(submit_command("j1", a=task()))
    for death in range(DEATHS):
        in_hand = InHand(path)
        assert not in_hand.is_poison(bad)
        assert in_hand.after_death == (death > 0)
        in_hand.hold(good)
        in_hand.drop()
        in_hand.hold(bad)  # and here it dies
    after = InHand(path)
    assert after.is_poison(bad)
    assert not after.is_poison(good)


def test_a_death_over_another_command_starts_the_count_again(tmp_path: Path) -> None:
    path = tmp_path / "in-hand"
    for name in ("a", "a", "b", "a", "a"):
        InHand(path).hold(name)
    in_hand = InHand(path)
    assert not in_hand.is_poison("a")
    in_hand.hold("a")
    assert InHand(path).is_poison("a")


def test_a_command_that_goes_well_is_cleared(tmp_path: Path) -> None:
    path = tmp_path / "in-hand"
    InHand(path).hold("a")
    InHand(path).hold("a")
    in_hand = InHand(path)
    in_hand.went_well("a")
    in_hand.hold("a")
    assert not InHand(path).is_poison("a")
    in_hand = InHand(path)
    in_hand.reset()
    in_hand.close()
    assert not path.exists()


async def test_poison_is_not_applied_again_after_the_third_death(tmp_path: Path) -> None:
    command = submit_command("j-bad", a=task())
    for _ in range(DEATHS):
        InHand(tmp_path / "in-hand").hold(command_id(command))
    rig = Rig(tmp_path)
    await rig.start()
    with pytest.raises(Unavailable):
        await rig.submit("j-bad", a=task())
    await rig.leader.ready.wait()
    found = await rig.store.job("j-bad")
    assert found is not None
    assert found[0].state == "quarantined"
    assert not rig.in_hand.is_poison(command_id(command))
    await rig.stop()


async def test_a_cancellation_that_breaks_the_pool_is_refused_from_then_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancel(pool, command):  # type: ignore[no-untyped-def]
        raise AssertionError("broken on purpose")

    monkeypatch.setattr(core_submission, "cancel", cancel)
    await rig.submit("j1", a=task())
    with pytest.raises(Unavailable):
        await rig.leader.ask(Cancel(job="j1"))
    await rig.leader.ready.wait()
    with pytest.raises(OperatorError):
        await rig.leader.ask(Cancel(job="j1"))
    assert rig.leader.term == 2


async def test_after_a_death_a_hello_is_applied_update_by_update(tmp_path: Path) -> None:
    InHand(tmp_path / "in-hand").hold("something")
    rig = Rig(tmp_path)
    await rig.start()
    await rig.node()
    await rig.submit("j1", a=task(), b=task())
    known = (
        *report(("j1", 0, 0, 1)).updates,
        AttemptUpdate(attempt="j1-1-0-1", state="running", started_at=1),
    )
    forget = await rig.leader.ask(NodeUp(node=node_row(4), known=known))
    assert tuple(forget) == ("j1-0-0-1",)
    task_rows = await rig.store.tasks("j1")
    assert [(row.succeeded, row.active) for row in task_rows] == [(1, 0), (0, 1)]
    await rig.stop()


async def test_a_job_that_does_not_load_is_set_aside_alone(tmp_path: Path) -> None:
    class Damaged(FaultyStore):
        async def load(self, pool: str, term: int):  # type: ignore[no-untyped-def]
            snapshot, undecodable = await super().load(pool, term)
            snapshot.set_aside = [row for row in snapshot.jobs if row.id == "j-bad"]
            snapshot.jobs = [row for row in snapshot.jobs if row.id != "j-bad"]
            snapshot.tasks = [row for row in snapshot.tasks if row.job != "j-bad"]
            snapshot.specs = [row for row in snapshot.specs if row.job != "j-bad"]
            return snapshot, {**undecodable, "j-bad": "its spec has no tasks"}

    rig = Rig(tmp_path)
    await rig.start()
    await rig.submit("j-bad", a=task())
    await rig.submit("j-good", a=task())
    rig.store.__class__ = Damaged
    rig.store.after = Unavailable("step down once")
    with pytest.raises(Unavailable):
        await rig.submit("j3", a=task())
    await rig.leader.ready.wait()
    bad, good = await rig.store.job("j-bad"), await rig.store.job("j-good")
    assert bad is not None
    assert good is not None
    assert (bad[0].state, good[0].state) == ("quarantined", "running")
    assert "its spec has no tasks" in (bad[0].message or "")
    await rig.stop()
