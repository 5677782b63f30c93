"""What is read to run parts of a job again, and how that is written."""

from __future__ import annotations

from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing

from towline.core.rows import KeyRow

KEY = KeyRow(namespace="default", key="k", digest="d7", job="j1", created_at=5)


async def fill(leader: Writing) -> None:
    await leader.submit("j1", 1)
    await leader.submit("j2", 2)
    states = ["succeeded", "succeeded", "failed", "cancelled", "failed", "queued", "active"]
    await leader.commit(
        elements=[
            *(rows.element("j1", index, state) for index, state in enumerate(states)),
            rows.element("j2", 0, "failed"),
        ],
        ranges=[rows.ended_range("j1", 7, 9), rows.ended_range("j1", 12, 20), rows.ended_range("j2", 1, 2)],
        events=[rows.event(3, "j1")],
    )


async def test_a_record_is_of_one_job_and_one_moment(leader: Writing) -> None:
    await fill(leader)
    record = await leader.store.record("default", "j1", "default", None)
    assert record is not None
    assert (record.term, record.event_no) == (leader.term, leader.event_no)
    assert (record.job.id, record.spec.job, [row.task for row in record.tasks]) == ("j1", "j1", [0])
    assert record.ended == [
        ("j1", 0, "succeeded", 0, 1),
        ("j1", 0, "failed", 2, 2),
        ("j1", 0, "cancelled", 3, 3),
        ("j1", 0, "failed", 4, 4),
    ]
    assert [(row.index, row.state) for row in record.elements] == [
        (2, "failed"),
        (3, "cancelled"),
        (4, "failed"),
    ]
    assert [(row.lo, row.hi) for row in record.ranges] == [(7, 9), (12, 20)]
    assert await leader.store.record("default", "j3", "default", None) is None


async def test_ranges_are_taken_away_before_others_are_put_there(leader: Writing) -> None:
    await fill(leader)
    await leader.commit(
        ranges_gone=[("j1", 0, 7), ("j1", 0, 12)],
        ranges=[rows.ended_range("j1", 12, 14), rows.ended_range("j1", 18, 20)],
    )
    record = await leader.store.record("default", "j1", "default", None)
    assert record is not None
    assert [(row.lo, row.hi) for row in record.ranges] == [(12, 14), (18, 20)]
    other = await leader.store.record("default", "j2", "default", None)
    assert other is not None and len(other.ranges) == 1


async def test_a_key_is_used_up_with_its_commit(leader: Writing) -> None:
    await fill(leader)
    before = await leader.store.record("default", "j1", "default", "k")
    await leader.commit(keys=[KEY])
    after = await leader.store.record("default", "j1", "default", "k")
    assert before is not None and before.taken is None
    assert after is not None and after.taken == "d7"
    (stands,) = await leader.store.reserve([rows.reservation("k", digest="other")])
    assert (stands.digest, stands.job) == ("d7", "j1")


async def test_a_job_that_runs_again_does_not_expire(leader: Writing) -> None:
    await leader.submit("j1", 1)
    await leader.commit(jobs=[rows.job("j1", 1, state="failed", ended_at=100)])
    await leader.commit(jobs=[rows.job("j1", 1)])
    assert await leader.store.expire("default", 200, 9) == 0
    assert await leader.store.job("j1") is not None
