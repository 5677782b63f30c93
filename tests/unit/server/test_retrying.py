"""Parts of jobs that run again through the leader: once for each key, whatever fails on the way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.builders import task
from tests.unit.server.conftest import Rig

from towline.core.pool import repair
from towline.core.rows import EventRow, JobRow
from towline.errors import Conflict, NotFound, OperatorError, StaleTerm, Unavailable
from towline.server.events import tells_end
from towline.server.leader.retrying import Retrier

DAY_S = 86_400.0


async def failed(rig: Rig, job: str = "j1") -> JobRow:
    """A job of two elements, one of which has failed."""
    await rig.node()
    await rig.submit(job, a=task(array=2))
    await rig.finish((job, 0, 0, 1))
    await rig.finish((job, 0, 1, 1), exit_code=1)
    return await row_of(rig, job)


async def row_of(rig: Rig, job: str = "j1") -> JobRow:
    found = await rig.store.job(job)
    assert found is not None
    return found[0]


def retrier(rig: Rig, retention_s: float = DAY_S) -> Retrier:
    return Retrier(rig.store, rig.leader, rig.settings.pool, retention_s)


async def test_an_ended_job_comes_back_from_the_store(rig: Rig) -> None:
    row = await failed(rig)
    assert row.state == "failed"
    assert await retrier(rig).retry(row, (), False, None) == ("a.1",)
    assert (await row_of(rig)).state == "running"
    await rig.finish(("j1", 0, 1, 2))
    assert (await row_of(rig)).state == "succeeded"
    assert rig.listener.starts == [("j1", 0, 0, 1), ("j1", 0, 1, 1), ("j1", 0, 1, 2)]


async def test_one_key_takes_effect_once_even_at_the_same_time(rig: Rig) -> None:
    row = await failed(rig)
    work = retrier(rig)
    answers = await asyncio.gather(*(work.retry(row, (), False, "k") for _ in range(3)))
    assert sorted(map(len, answers)) == [0, 0, 1]
    await rig.finish(("j1", 0, 1, 2), exit_code=1)
    assert await work.retry(row, (), False, "k") == ()
    assert (await row_of(rig)).state == "failed"
    with pytest.raises(Conflict, match="another request"):
        await work.retry(row, (("a", 1),), False, "k")


async def test_a_commit_whose_answer_is_lost_is_not_done_again(rig: Rig) -> None:
    row = await failed(rig)
    rig.store.after = StaleTerm("lost")
    with pytest.raises(Unavailable):
        await retrier(rig).retry(row, (), False, "k")
    await rig.leader.ready.wait()
    await rig.node()
    await rig.finish(("j1", 0, 1, 2), exit_code=1)
    assert await retrier(rig).retry(row, (), False, "k") == ()
    assert (await row_of(rig)).state == "failed"


async def test_a_job_whose_history_is_about_to_go_stays_history(rig: Rig) -> None:
    row = await failed(rig)
    with pytest.raises(NotFound, match="about to be deleted"):
        await retrier(rig, retention_s=-60).retry(row, (), False, None)


async def test_a_retry_that_breaks_the_pool_is_refused_from_then_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise AssertionError("broken on purpose")

    row = await failed(rig)
    monkeypatch.setattr(repair, "retry", broken)
    with pytest.raises(Unavailable):
        await retrier(rig).retry(row, (), False, "k")
    await rig.leader.ready.wait()
    with pytest.raises(OperatorError):
        await retrier(rig).retry(row, (), False, "k")
    assert (await row_of(rig)).state == "failed"


def test_an_end_that_was_undone_is_no_end() -> None:
    def rows(*kinds: str) -> list[EventRow]:
        return [EventRow(number=at, at=0, kind=kind, job="j", data={}) for at, kind in enumerate(kinds)]

    assert tells_end(rows("task.ended", "job.ended"))
    assert not tells_end(rows("job.ended", "job.retried", "elements.retried"))
    assert tells_end(rows("job.ended", "job.retried", "job.ended"))
    assert not tells_end(rows("task.ended"))
