"""The group-commit loop: what leaves when, and what becomes of batches that do not land."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.builders import task
from tests.unit.server.conftest import Rig, submit_command

from towline.core.commands import Cancel
from towline.errors import NotFound, StoreError, Unavailable


async def test_a_submission_is_on_record_when_it_is_answered(rig: Rig) -> None:
    await rig.submit("j1", a=task())
    found = await rig.store.job("j1")
    assert found is not None
    assert found[0].state == "running"


async def test_orders_and_answers_leave_after_the_commit_only(rig: Rig) -> None:
    await rig.node()
    asked, gate = await rig.held_submit("j1", a=task())
    assert not asked.done()
    assert rig.listener.starts == []
    gate.set()
    await asked
    assert rig.listener.starts == [("j1", 0, 0, 1)]


async def test_what_arrives_during_a_commit_goes_into_the_next_one_together(rig: Rig) -> None:
    first, gate = await rig.held_submit("j0", a=task())
    others = [asyncio.create_task(rig.submit(f"j{n}", a=task())) for n in range(1, 6)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, *others)
    assert rig.store.sizes[-2:] == [1, 5]


async def test_a_failed_commit_is_answered_unavailable_also_to_the_batch_on_top(rig: Rig) -> None:
    first, gate = await rig.held_submit("j1", a=task())
    second = asyncio.create_task(rig.submit("j2", a=task()))
    await asyncio.sleep(0)
    rig.store.before = StoreError("the disk is full")
    gate.set()
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable, Unavailable]
    await rig.leader.ready.wait()
    assert await rig.store.job("j1") is None
    assert await rig.store.job("j2") is None
    await rig.submit("j1", a=task())
    assert rig.leader.term == 2


async def test_a_commit_of_unknown_outcome_is_found_again_and_nothing_is_doubled(rig: Rig) -> None:
    await rig.node()
    rig.store.after = StoreError("the answer got lost")
    with pytest.raises(Unavailable):
        await rig.submit("j1", a=task())
    await rig.leader.ready.wait()
    await rig.submit("j1", a=task())
    kinds = [event.kind for event in await rig.store.events("default", 0, 100)]
    assert kinds.count("job.submitted") == 1
    # The order was never sent: the node's next Hello brings it.
    assert rig.listener.starts == []
    await rig.node()
    assert rig.listener.starts == [("j1", 0, 0, 1)]


async def test_a_stale_term_throws_the_memory_away(rig: Rig) -> None:
    await rig.store.raise_term("default")  # another leader took over
    with pytest.raises(Unavailable):
        await rig.submit("j1", a=task())
    await rig.leader.ready.wait()
    assert rig.leader.term == 3
    assert rig.listener.told[-3:] == [("down",), ("leading", 3), ("committed", [])]


async def test_a_refusal_is_the_callers_alone(rig: Rig) -> None:
    with pytest.raises(NotFound):
        await rig.leader.ask(Cancel(job="nobody"))
    await rig.submit("j1", a=task())
    assert rig.leader.term == 1


async def test_a_dag_runs_from_completions(rig: Rig) -> None:
    await rig.node()
    await rig.submit("j1", a=task(), b=task(needs="a"), c=task(needs="b"))
    for position in range(3):
        assert rig.listener.starts[-1] == ("j1", position, 0, 1)
        assert await rig.finish(("j1", position, 0, 1)) == (f"j1-{position}-0-1",)
    found = await rig.store.job("j1")
    assert found is not None
    assert found[0].state == "succeeded"


async def test_under_load_reports_share_commits_and_alone_they_do_not_wait(tmp_path: Path) -> None:
    rig = Rig(tmp_path, window_ms=1000)
    await rig.start()
    await rig.node(cpus=40)
    await rig.submit("j1", a=task(array=400))
    await rig.submit("j2", a=task())  # the window opens with this commit
    before = len(rig.store.sizes)
    asked = [asyncio.create_task(rig.finish(("j1", 0, index, 1))) for index in range(40)]
    await asyncio.gather(*asked)
    assert len(rig.store.sizes) - before <= 2
    await rig.stop()


async def test_the_end_finishes_what_has_arrived(rig: Rig) -> None:
    asked = asyncio.create_task(rig.submit("j1", a=task()))
    await asyncio.sleep(0)
    rig.leader.end()
    await asked
    assert rig.task is not None
    await rig.task
    with pytest.raises(Unavailable):
        await rig.submit("j2", a=task())


async def test_an_opinion_is_of_the_memory(rig: Rig) -> None:
    await rig.submit("j1", a=task())
    why = rig.leader.opinion(lambda pool: pool.explain("j1", "a", None))
    assert "no node" in why.summary + " ".join(why.details)


async def test_heartbeats_are_answered_with_the_term_and_write_nothing(rig: Rig) -> None:
    await rig.node()
    commits = len(rig.store.sizes)
    assert rig.leader.heard("n1") == 1
    assert len(rig.store.sizes) == commits


async def test_a_retry_waits_for_its_backoff_and_no_longer(rig: Rig) -> None:
    await rig.node()
    await rig.submit("j1", a=task(retries=1, backoff_ms=20))
    again = asyncio.Event()
    rig.listener.on_orders = lambda _: again.set()
    await rig.finish(("j1", 0, 0, 1), exit_code=1)
    async with asyncio.timeout(10):
        await again.wait()
    assert rig.listener.starts == [("j1", 0, 0, 1), ("j1", 0, 0, 2)]


async def test_a_caller_that_went_away_disturbs_nobody(rig: Rig) -> None:
    asked = asyncio.create_task(rig.leader.ask(submit_command("j1", a=task())))
    await asyncio.sleep(0)
    asked.cancel()
    await rig.submit("j2", a=task())
    assert await rig.store.job("j1") is not None
