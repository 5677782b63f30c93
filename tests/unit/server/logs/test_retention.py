"""Old jobs go with their output, and output makes room; what may still be written stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing
from tests.unit.server.logs.kept import SEGMENT_BYTES, Kept

from towline.server.logs.own_node import OwnNode
from towline.server.logs.retention import Garbage, Retention
from towline.store.memory import MemoryStore

DAY_MS = 86_400_000


@pytest.fixture
async def leader() -> Writing:
    return await Writing.lead(MemoryStore(), "default")


def of_one_machine(leader: Writing, home: Path) -> Retention:
    now_s = 100 * DAY_MS / 1000
    return Retention(leader.store, None, "default", 10, 2**30, lambda: now_s, own_node=OwnNode(home / "node"))


def retention(
    leader: Writing, kept: Kept | None, *, days: float = 10, output_bytes: int = 2**30
) -> Retention:
    return Retention(leader.store, kept, "default", 10, output_bytes, lambda: 100 * DAY_MS / 1000)


async def job(leader: Writing, id: str, seq: int, ended_day: int | None, **attempts: str) -> None:
    """``attempts``: the state of each of element 0's, in their order."""
    await leader.submit(id, seq)
    ended_at = None if ended_day is None else ended_day * DAY_MS
    await leader.commit(
        jobs=[rows.job(id, seq, state="running" if ended_at is None else "succeeded", ended_at=ended_at)],
        attempts=[
            rows.attempt(id, 0, number, state) for number, state in enumerate(attempts.values(), start=1)
        ],
    )


def segment(kept: Kept, *attempts: str) -> int:
    """Fill one segment with a part of each attempt; returns its number."""
    before = set(kept.sealed())
    for attempt in attempts:
        kept.put(attempt, kept.extent(attempt).sizes[0], b"x" * (SEGMENT_BYTES // len(attempts)))
    (made,) = set(kept.sealed()) - before
    return made


async def test_old_jobs_take_the_output_that_is_theirs_alone(leader: Writing, kept: Kept) -> None:
    await job(leader, "old", 1, 80, a="finished")
    await job(leader, "new", 2, 95, a="finished")
    alone, shared = segment(kept, "old-0-0-1"), segment(kept, "old-0-0-1", "new-0-0-1")
    one = retention(leader, kept)
    size = kept.sealed()[alone]
    assert await one.would() == Garbage(1, size)
    assert list(kept.sealed()) == [alone, shared], "a look removes nothing"
    assert await one.collect() == Garbage(1, size)
    assert list(kept.sealed()) == [shared]
    assert await leader.store.job("old") is None
    assert kept.extent("old-0-0-1").sizes == (0, 0)
    assert kept.extent("new-0-0-1").sizes == (SEGMENT_BYTES // 2, 0)
    assert await one.would() == Garbage(0, 0)


async def test_the_oldest_of_ended_attempts_make_room(leader: Writing, kept: Kept) -> None:
    await job(leader, "done", 1, 99, a="finished")
    await job(leader, "part", 2, None, a="lost", b="running")
    running = segment(kept, "done-0-0-1", "part-0-0-2")
    first, second, third = (segment(kept, name) for name in ("done-0-0-1", "part-0-0-1", "done-0-0-1"))
    sizes = kept.sealed()
    one = retention(leader, kept, output_bytes=sum(sizes.values()) - sizes[first] - 1)
    assert (await one.would()).output_bytes == sizes[first] + sizes[second]
    assert await one.make_room() == sizes[first] + sizes[second]
    assert list(kept.sealed()) == [running, third]
    assert await one.make_room() == 0
    assert kept.was_removed("part-0-0-1")


async def test_what_is_still_written_stays_however_much_it_is(leader: Writing, kept: Kept) -> None:
    await job(leader, "busy", 1, None, a="running")
    made = segment(kept, "busy-0-0-1")
    assert await retention(leader, kept, output_bytes=1).make_room() == 0
    assert list(kept.sealed()) == [made]


async def test_one_machine_has_old_jobs_alone(leader: Writing) -> None:
    await job(leader, "old", 1, 80)
    one = retention(leader, None)
    assert await one.would() == Garbage(1, 0)
    assert await one.collect() == Garbage(1, 0)


async def test_on_one_machine_they_take_what_its_node_keeps_of_them(leader: Writing, tmp_path: Path) -> None:
    for name, ended_day in (("old", 80), ("new", 95), ("runs", None)):
        await job(leader, name, 1, ended_day, a="finished")
        output = tmp_path / "node" / "output" / f"{name}-0-0-1"
        output.mkdir(parents=True)
        (output / "stdout").write_bytes(b"x" * 100)
        written = tmp_path / "node" / "artifacts" / name / "0" / "0"
        written.mkdir(parents=True)
        (written / "file").write_bytes(b"x" * 1000)
        (written / "link").symlink_to(tmp_path)
    one = of_one_machine(leader, tmp_path)
    found = await one.would()
    assert (found.jobs, found.output_bytes) == (1, 100)
    assert found.artifact_bytes >= 1000
    assert await one.collect() == found
    left = {path.relative_to(tmp_path / "node").as_posix() for path in (tmp_path / "node").glob("*/*")}
    assert left == {"output/new-0-0-1", "output/runs-0-0-1", "artifacts/new", "artifacts/runs"}
    assert await one.would() == Garbage(0, 0)
