"""What is committed is there, all of it or nothing, and only what the fence lets through."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.conformance.stores import rows
from tests.conformance.stores.registry import DURABLE, STORES
from tests.conformance.stores.rows import Writing

from towline.core.rows import DurationRow, GpuDevice, UsageRow
from towline.errors import StaleTerm, StoreError, Unstorable
from towline.store.port import Store


async def test_everything_committed_is_loaded(leader: Writing) -> None:
    job = rows.job("j1", 1, message="größer\n\x1b[31m", priority=100, cancel_requested=True)
    spec = rows.spec("j1", base_dir="/home/me/my job")
    task = rows.task("j1", first=3, last=12, next=8, ready=False, waiting=2, queued=3)
    elements = [
        rows.element("j1", 3, "queued", number=2, losses=1, not_before=1_760_000_000_123, reason="node_lost"),
        rows.element("j1", 4, "active", failures=2),
    ]
    attempts = [
        rows.attempt("j1", 3, 2, "lost", reason="node_lost", finished_at=1_760_000_000_100),
        rows.attempt(
            "j1",
            4,
            1,
            "running",
            stop="cancelled",
            started_at=5,
            peak_memory_bytes=2**40,
            image_digest="sha256:0",
        ),
    ]
    ranges = [rows.ended_range("j1", 9, 12)]
    nodes = [rows.node("n1"), rows.node("n2", labels={}, state="lost")]
    lists = {"tasks": [task], "elements": elements, "attempts": attempts, "ranges": ranges, "nodes": nodes}
    told = rows.event(1, "j1", task="main", elements=[[3, 1], [4, 1]])
    await leader.commit(jobs=[job], specs=[spec], events=[told], **lists)

    snapshot, damaged = await leader.store.load("default", leader.term)
    assert damaged == {}
    assert (snapshot.pool, snapshot.term, snapshot.commit_no) == ("default", leader.term, 1)
    assert (snapshot.event_no, snapshot.job_seq) == (1, 1)
    assert snapshot.jobs == [job] and snapshot.specs == [spec] and snapshot.tasks == [task]
    assert snapshot.elements == elements and snapshot.attempts == attempts
    assert snapshot.ranges == ranges and snapshot.nodes == nodes and snapshot.ended == []


async def test_what_belongs_to_the_pool_itself_is_loaded(leader: Writing) -> None:
    gpus = (GpuDevice(id="GPU-1", model="A100", memory_bytes=80 * 2**30, slice="1g.5gb"),)
    node = rows.node("n1", gpus=gpus, taints=("gpu=only",), protects={"oci": ("userns",)}, disk_bytes=2**40)
    queues = [rows.queue("a", max_active=3), rows.queue("b", parent="a", weight_milli=2_500, maximum={})]
    usages = [UsageRow(namespace="default", usage=2**60, at=7)]
    durations = [DurationRow(namespace="default", name="flights", task="count", data={"count": 3})]
    await leader.commit(nodes=[node], queues=queues, usages=usages, durations=durations)
    await leader.commit(queues=[rows.queue("c", max_priority=10)], queues_gone=["b"])

    snapshot, _ = await leader.store.load("default", leader.term)
    assert snapshot.nodes == [node]
    assert snapshot.queues == [queues[0], rows.queue("c", max_priority=10)]
    assert snapshot.usages == usages and snapshot.durations == durations
    other = await Writing.lead(leader.store, "other")
    assert (await leader.store.load("other", other.term))[0].queues == []


async def test_a_later_commit_replaces_rows(leader: Writing) -> None:
    await leader.submit("j1", 1)
    await leader.commit(elements=[rows.element("j1", 0)], attempts=[rows.attempt("j1", 0)])
    ended = rows.element("j1", 0, "failed", reason="exited", exit_code=3)
    finished = rows.attempt("j1", 0, 1, "finished", reason="exited", exit_code=3, finished_at=9)
    task = rows.task("j1", next=1, queued=0, failed=1)
    await leader.commit(elements=[ended], attempts=[finished], tasks=[task])
    page = await leader.store.elements("j1", 0, -1, 10)
    assert (page.elements, page.attempts) == ([ended], [finished])
    assert await leader.store.tasks("j1") == [task]


async def test_what_is_taken_away_and_written_again_in_one_commit_is_there(leader: Writing) -> None:
    await leader.submit("j1", 1)
    await leader.commit(
        ranges=[rows.ended_range("j1", 3, 9), rows.ended_range("j1", 20, 29)], queues=[rows.queue("q")]
    )
    shorter = rows.ended_range("j1", 3, 5)
    gone = [("j1", 0, 3), ("j1", 0, 20), ("j1", 0, 7)]
    await leader.commit(ranges=[shorter], ranges_gone=gone, queues=[rows.queue("q")], queues_gone=["q"])
    snapshot, _ = await leader.store.load("default", leader.term)
    assert (snapshot.ranges, snapshot.queues) == ([shorter], [])


async def test_the_caller_may_change_its_rows_after_the_call(leader: Writing) -> None:
    await leader.submit("j1", 1)
    element = rows.element("j1", 0)
    committing = asyncio.ensure_future(leader.commit(elements=[element]))
    await asyncio.sleep(0)  # until the call has been made
    element.state = "failed"
    await committing
    page = await leader.store.elements("j1", 0, -1, 0)
    assert [row.state for row in page.elements] == ["active"]


@pytest.mark.parametrize(("terms_back", "commits_back"), [(1, 0), (-1, 0), (0, 1), (0, -1)])
async def test_the_fence_lets_nothing_of_another_leader_through(
    leader: Writing, terms_back: int, commits_back: int
) -> None:
    await leader.submit("j1", 1)
    other = Writing(leader.store, "default", leader.term - terms_back, leader.commit_no - commits_back)
    with pytest.raises(StaleTerm):
        await other.commit(jobs=[rows.job("j2", 2)], events=[rows.event(1)], nodes=[rows.node()])
    assert await leader.store.job("j2") is None
    assert await leader.store.nodes("default") == []
    assert await leader.store.events("default", 0, 10) == []
    assert await leader.store.counters("default") == (leader.term, 0)
    await leader.submit("j3", 2)
    assert [row.id for row in await leader.store.jobs("default", None, 10)] == ["j3", "j1"]


async def test_a_new_term_ends_the_old_leader(leader: Writing) -> None:
    successor = await Writing.lead(leader.store, "default")
    assert successor.term == leader.term + 1
    with pytest.raises(StaleTerm):
        await leader.submit("j1", 1)
    with pytest.raises(StaleTerm):
        await leader.store.load("default", leader.term)
    await successor.submit("j1", 1)


async def test_a_pool_that_nobody_made_takes_no_commit(store: Store) -> None:
    with pytest.raises(StaleTerm):
        await store.commit("nowhere", 1, 0, rows.changes(nodes=[rows.node()]))
    assert await store.counters("nowhere") == (0, 0)
    assert await store.nodes("nowhere") == []


async def test_a_commit_that_fails_half_way_writes_nothing(leader: Writing) -> None:
    await leader.submit("j1", 1)
    await leader.commit(events=[rows.event(1, "j1")])
    with pytest.raises(StoreError):  # its last row is there already
        await leader.commit(
            jobs=[rows.job("j1", 1, state="failed")],
            elements=[rows.element("j1", 0)],
            events=[rows.event(2, "j1"), rows.event(1, "j1")],
        )
    found = await leader.store.job("j1")
    assert found is not None and found[0].state == "running"
    assert (await leader.store.elements("j1", 0, -1, 9)).elements == []
    assert await leader.store.counters("default") == (leader.term, 1)
    await leader.commit(events=[rows.event(2, "j1")])  # and the next one goes on from there
    assert [row.number for row in await leader.store.events("default", 0, 9)] == [1, 2]


async def test_pools_do_not_see_each_other(leader: Writing) -> None:
    other = await Writing.lead(leader.store, "other")
    await leader.submit("j1", 1)
    await other.submit("j2", 1)
    await other.commit(nodes=[rows.node("n9")], events=[rows.event(1, "j2")])
    for writing, job in ((leader, "j1"), (other, "j2")):
        snapshot, _ = await writing.store.load(writing.pool, writing.term)
        assert [row.id for row in snapshot.jobs] == [job]
        assert [row.job for row in snapshot.specs] == [job]
    assert await leader.store.nodes("default") == []
    assert await leader.store.events("default", 0, 9) == []


async def test_what_has_ended_is_not_loaded(leader: Writing) -> None:
    await leader.submit("j1", 1)
    await leader.submit("j2", 2)
    await leader.commit(
        jobs=[rows.job("j1", 1, state="succeeded", ended_at=7)],
        elements=[rows.element("j1", 0, "succeeded")],
        attempts=[rows.attempt("j1", 0, 1, "finished")],
    )
    snapshot, _ = await leader.store.load("default", leader.term)
    assert [row.id for row in snapshot.jobs] == ["j2"]
    assert (snapshot.elements, snapshot.ended, snapshot.attempts) == ([], [], [])


async def test_a_quarantined_job_is_loaded(leader: Writing) -> None:
    await leader.submit("j1", 1, state="quarantined")
    await leader.commit(elements=[rows.element("j1", 0)], attempts=[rows.attempt("j1", 0, 1, "running")])
    snapshot, _ = await leader.store.load("default", leader.term)
    assert [row.state for row in snapshot.jobs] == ["quarantined"]
    assert [row.state for row in snapshot.attempts] == ["running"]


async def test_ended_elements_are_loaded_as_ranges(leader: Writing) -> None:
    await leader.submit("j1", 1)
    await leader.submit("j2", 2)
    states = ["succeeded"] * 3 + ["failed"] * 2 + ["active", "succeeded", "queued", "cancelled"]
    made = [rows.element(job, index, state) for job in ("j1", "j2") for index, state in enumerate(states)]
    await leader.commit(elements=[*made, rows.element("j1", 9, "cancelled", task=1)])
    snapshot, _ = await leader.store.load("default", leader.term)
    ranges = [(0, "succeeded", 0, 2), (0, "failed", 3, 4), (0, "succeeded", 6, 6), (0, "cancelled", 8, 8)]
    assert snapshot.ended == [
        *(("j1", *one) for one in ranges),
        ("j1", 1, "cancelled", 9, 9),
        *(("j2", *one) for one in ranges),
    ]
    assert [(row.job, row.index) for row in snapshot.elements] == [("j1", 5), ("j1", 7), ("j2", 5), ("j2", 7)]


async def test_attempts_loaded_are_live_or_the_newest_of_a_queued_element(leader: Writing) -> None:
    await leader.submit("j1", 1)
    await leader.commit(
        elements=[rows.element("j1", 0, "queued", number=2), rows.element("j1", 1, number=2)],
        attempts=[
            rows.attempt("j1", 0, 1, "lost"),
            rows.attempt("j1", 0, 2, "finished"),
            rows.attempt("j1", 1, 1, "finished"),
            rows.attempt("j1", 1, 2, "preparing"),
        ],
    )
    snapshot, _ = await leader.store.load("default", leader.term)
    assert [(row.index, row.number) for row in snapshot.attempts] == [(0, 2), (1, 2)]


async def test_a_job_whose_rows_are_incomplete_is_left_out_and_named(leader: Writing) -> None:
    await leader.submit("whole", 1)
    await leader.commit(jobs=[rows.job("specless", 2)], tasks=[rows.task("specless")])
    await leader.commit(jobs=[rows.job("taskless", 3)], specs=[rows.spec("taskless")])
    await leader.commit(elements=[rows.element("taskless", 0)], attempts=[rows.attempt("taskless", 0)])
    snapshot, damaged = await leader.store.load("default", leader.term)
    assert [row.id for row in snapshot.jobs] == ["whole"]
    assert [row.job for row in snapshot.tasks] == ["whole"]
    assert (snapshot.elements, snapshot.attempts) == ([], [])
    assert damaged == {
        "specless": "its row of table spec is missing",
        "taskless": "its spec has 1 tasks, table task 0",
    }


@pytest.mark.parametrize("name", DURABLE)
@pytest.mark.parametrize("wrong", [2**63, "\ud800"])
async def test_a_value_that_no_column_takes_is_told_from_a_failure(
    name: str, tmp_path: Path, wrong: object
) -> None:
    """The same change would fail for ever; any other is taken, and nothing of this one is there."""
    store = STORES[name](tmp_path)
    await store.open()
    leader = await Writing.lead(store, "default")
    await leader.submit("j1", 1)
    fields = {"peak_memory_bytes" if isinstance(wrong, int) else "message": wrong}
    with pytest.raises(Unstorable, match="it does not take a value of this: ") as refused:
        await leader.commit(elements=[rows.element("j1", 0)], attempts=[rows.attempt("j1", 0, **fields)])
    assert str(refused.value).encode().decode() == str(refused.value)
    assert (await store.elements("j1", 0, -1, 9)).elements == []
    await leader.commit(elements=[rows.element("j1", 0, message=str(refused.value))])
    assert len((await store.elements("j1", 0, -1, 9)).elements) == 1
    await store.close()


@pytest.mark.parametrize("name", DURABLE)
async def test_what_was_committed_is_there_when_the_store_is_opened_again(name: str, tmp_path: Path) -> None:
    store = STORES[name](tmp_path)
    await store.open()
    leader = await Writing.lead(store, "default")
    await leader.submit("j1", 1)
    await store.reserve([rows.reservation("k1")])
    before, _ = await store.load("default", leader.term)
    await store.close()

    again = STORES[name](tmp_path)
    await again.open()
    assert await again.load("default", leader.term) == (before, {})
    assert await again.raise_term("default") == leader.term + 1
    assert await again.reserve([rows.reservation("k1", "d2", "j2")]) == [rows.reservation("k1")]
    await again.close()
