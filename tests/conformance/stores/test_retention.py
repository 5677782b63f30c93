"""What is old goes, with everything below it; what is not, stays."""

from __future__ import annotations

from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing

NOW_FAR_AHEAD_MS = 2**50


async def end(leader: Writing, id: str, seq: int, ended_at: int) -> None:
    await leader.submit(id, seq)
    await leader.commit(
        jobs=[rows.job(id, seq, state="succeeded", ended_at=ended_at)],
        elements=[rows.element(id, index, "succeeded") for index in range(30)],
        attempts=[rows.attempt(id, index, 1, "finished") for index in range(30)],
        ranges=[rows.ended_range(id, 30, 40)],
    )


async def test_jobs_that_ended_before_go_with_all_below_them(leader: Writing) -> None:
    await end(leader, "old", 1, ended_at=100)
    await end(leader, "new", 2, ended_at=200)
    await leader.submit("running", 3)
    assert await leader.store.expired("default", 200, 10) == ["old"]
    assert await leader.store.expire("default", 200, 10) == 1
    assert await leader.store.expired("default", 200, 10) == []
    assert [row.id for row in await leader.store.jobs("default", None, 9)] == ["running", "new"]
    assert await leader.store.job("old") is None
    assert await leader.store.tasks("old") == []
    page = await leader.store.elements("old", 0, -1, 99)
    assert (page.elements, page.ranges, page.attempts) == ([], [], [])
    kept = await leader.store.elements("new", 0, -1, 99)
    assert (len(kept.elements), len(kept.ranges), len(kept.attempts)) == (30, 1, 30)
    assert await leader.store.expire("default", 200, 10) == 0


async def test_the_oldest_go_first_and_no_more_than_the_limit(leader: Writing) -> None:
    for seq, ended_at in ((1, 30), (2, 10), (3, 20)):
        await end(leader, f"j{seq}", seq, ended_at)
    assert await leader.store.expired("default", 100, 2) == ["j2", "j3"]
    assert await leader.store.expire("default", 100, 2) == 2
    assert [row.id for row in await leader.store.jobs("default", None, 9)] == ["j1"]


async def test_other_pools_are_left_alone(leader: Writing) -> None:
    await end(leader, "mine", 1, ended_at=10)
    other = await Writing.lead(leader.store, "other")
    await other.commit(events=[rows.event(1)])
    assert await leader.store.expire("other", 1_000, 9) == 0
    assert await leader.store.job("mine") is not None
    assert await leader.store.expire("default", NOW_FAR_AHEAD_MS, 9) == 1
    assert len(await leader.store.events("other", 0, 9)) == 1


async def test_old_events_go_from_the_start_only(leader: Writing) -> None:
    made = [rows.event(number) for number in range(1, 7)]
    made[4].at = 0  # a clock that jumped back leaves no hole
    await leader.commit(events=made)
    await leader.store.expire("default", made[2].at, 9)
    assert await leader.store.events("default", 0, 9) == made[2:]


async def test_keys_go_once_their_job_is_gone(leader: Writing) -> None:
    await end(leader, "old", 1, ended_at=10)
    await leader.submit("kept", 2)
    keys = [
        rows.reservation("k1", job="old"),
        rows.reservation("k2", job="kept"),
        rows.reservation("k3", job="no"),
    ]
    await leader.store.reserve(keys)
    await leader.store.expire("default", 1_000, 9)  # the job is gone, the key is young
    asked = [rows.reservation(key.key, job="new") for key in keys]
    assert await leader.store.reserve(asked) == keys
    await leader.store.expire("default", NOW_FAR_AHEAD_MS, 9)
    assert await leader.store.reserve(asked) == [asked[0], keys[1], asked[2]]
