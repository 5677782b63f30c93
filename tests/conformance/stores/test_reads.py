"""The facts that any server reads."""

from __future__ import annotations

from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing

from towline.store.port import Store


def ids(found: list[rows.JobRow]) -> list[str]:
    return [row.id for row in found]


async def test_nothing_is_found_in_an_empty_store(store: Store) -> None:
    assert await store.find_jobs("default", "j1") == []
    assert await store.jobs("default", None, 10) == []
    assert await store.job("j1") is None
    assert await store.tasks("j1") == []
    page = await store.elements("j1", 0, -1, 10)
    assert (page.elements, page.ranges, page.attempts) == ([], [], [])
    assert await store.first_failure("j1") is None
    assert await store.attempt("j1", 0, 0, 1) is None
    assert await store.nodes("default") == []
    assert await store.events("default", 0, 10) == []
    assert await store.counters("default") == (0, 0)


async def test_a_job_argument_is_an_id_then_a_name_then_a_prefix(leader: Writing) -> None:
    await leader.submit("abc1", 1, name="one")
    await leader.submit("abc2", 2, name="one")
    await leader.submit("abd3", 3, name="abc1")
    await leader.submit("abc4", 4, name="one", namespace="other")
    find = leader.store.find_jobs
    assert ids(await find("default", "abc1")) == ["abc1"]  # the id, although a newer job is named so
    assert ids(await find("default", "one")) == ["abc2"]
    assert ids(await find("default", "abc")) == ["abc2", "abc1"]
    assert ids(await find("default", "ab")) == ["abd3", "abc2", "abc1"]
    assert ids(await find("other", "ab")) == ["abc4"]
    assert await find("other", "abc1") == []
    assert await find("default", "abc12") == []


async def test_a_prefix_is_taken_letter_by_letter(leader: Writing) -> None:
    await leader.submit("a_b", 1, name="x")
    await leader.submit("aXb", 2, name="x")
    for nothing in ("", "a%", "A", "_", "*", "b"):
        assert await leader.store.find_jobs("default", nothing) == []
    assert ids(await leader.store.find_jobs("default", "a_")) == ["a_b"]


async def test_a_prefix_names_at_most_ten_jobs(leader: Writing) -> None:
    for seq in range(1, 13):
        await leader.submit(f"j{seq:02}", seq)
    assert ids(await leader.store.find_jobs("default", "j")) == [f"j{seq:02}" for seq in range(12, 2, -1)]


async def test_jobs_are_listed_newest_first_page_by_page(leader: Writing) -> None:
    for seq in range(1, 8):
        await leader.submit(f"j{seq}", seq, state="failed" if seq % 3 == 0 else "running")
    await leader.submit("hidden", 8, namespace="other")
    jobs = leader.store.jobs
    assert ids(await jobs("default", None, 3)) == ["j7", "j6", "j5"]
    assert ids(await jobs("default", (5, "j5"), 3)) == ["j4", "j3", "j2"]
    assert ids(await jobs("default", (2, ""), 3)) == ["j1"]
    assert ids(await jobs("default", None, 9, ["failed"])) == ["j6", "j3"]
    assert ids(await jobs("default", (6, "j6"), 3, ["failed", "running"])) == ["j5", "j4", "j3"]
    assert await jobs("default", None, 9, ["succeeded"]) == []


async def test_a_page_has_what_touches_its_indexes(leader: Writing) -> None:
    await leader.submit("j1", 1)
    await leader.commit(
        elements=[rows.element("j1", index) for index in (0, 4, 5, 9, 10)] + [rows.element("j1", 5, task=1)],
        attempts=[rows.attempt("j1", index, number) for index in (4, 5, 10) for number in (1, 2)],
        ranges=[rows.ended_range("j1", lo, hi) for lo, hi in ((1, 3), (6, 8), (11, 20))],
    )
    page = await leader.store.elements("j1", 0, 3, 7)
    assert [row.index for row in page.elements] == [4, 5]
    assert [(row.index, row.number) for row in page.attempts] == [(4, 1), (4, 2), (5, 1), (5, 2)]
    assert [(row.lo, row.hi) for row in page.ranges] == [(6, 8)]
    page = await leader.store.elements("j1", 0, 7, 11)
    assert [row.index for row in page.elements] == [9, 10]
    assert [(row.lo, row.hi) for row in page.ranges] == [(6, 8), (11, 20)]
    assert [row.task for row in (await leader.store.elements("j1", 1, -1, 99)).elements] == [1]


async def test_the_first_failure_is_the_one_that_ended_first(leader: Writing) -> None:
    await leader.submit("j1", 1)
    assert await leader.store.first_failure("j1") is None
    failed = [rows.element("j1", index, "failed", number=2) for index in range(4)]
    failed += [
        rows.element("j1", 0, "failed", task=1, number=2),
        rows.element("j1", 7, "succeeded", number=2),
    ]
    ends = {(0, 0): 50, (0, 1): 20, (0, 2): 20, (1, 0): 20, (0, 7): 5}
    attempts = [
        rows.attempt("j1", index, 2, "finished", task=task, finished_at=at)
        for (task, index), at in ends.items()
    ]
    attempts += [rows.attempt("j1", 0, 1, "finished", finished_at=1), rows.attempt("j1", 3, 2, "lost")]
    await leader.commit(elements=failed, attempts=attempts)
    assert await leader.store.first_failure("j1") == failed[1]


async def test_an_attempt_is_found_by_its_key(leader: Writing) -> None:
    await leader.submit("j1", 1)
    attempts = [rows.attempt("j1", 5, number) for number in (1, 2)]
    await leader.commit(attempts=attempts)
    assert await leader.store.attempt("j1", 0, 5, 2) == attempts[1]
    assert await leader.store.attempt("j1", 0, 5, 3) is None
    assert await leader.store.attempt("j1", 1, 5, 1) is None


async def test_a_job_is_read_with_its_spec_and_tasks(leader: Writing) -> None:
    job, spec = rows.job("j1", 1), rows.spec("j1", base_dir="/data")
    tasks = [rows.task("j1", position, name=f"t{position}") for position in range(12)]
    await leader.commit(jobs=[job], specs=[spec], tasks=tasks[::-1])
    assert await leader.store.job("j1") == (job, spec)
    assert await leader.store.tasks("j1") == tasks


async def test_events_are_read_from_a_cursor_on(leader: Writing) -> None:
    await leader.submit("j1", 1)
    await leader.submit("j2", 2)
    made = [
        rows.event(number, "j2" if number % 3 == 0 else "j1", task="a", n=number) for number in range(1, 10)
    ]
    made.append(rows.event(10, None, "node.up", node="n1"))
    await leader.commit(events=made[:4])
    await leader.commit(events=made[4:])
    events = leader.store.events
    assert await events("default", 0, 100) == made
    assert await events("default", 3, 4) == made[3:7]
    assert await events("default", 10, 100) == []
    assert [row.number for row in await events("default", 3, 2, "j2")] == [6, 9]
    assert await events("elsewhere", 0, 100) == []
    assert await leader.store.counters("default") == (leader.term, 10)


async def test_a_reader_that_follows_the_cursor_misses_nothing(leader: Writing) -> None:
    seen: list[int] = []
    for commit in range(20):
        await leader.commit(events=[rows.event(commit * 3 + n) for n in (1, 2, 3)])
        while found := await leader.store.events("default", seen[-1] if seen else 0, 2):
            seen += [row.number for row in found]
    assert seen == list(range(1, 61))
