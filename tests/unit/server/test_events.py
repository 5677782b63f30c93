"""The feed: what is in memory, what is not, and readers that are too slow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from towline.core.rows import EventRow, JobRow
from towline.errors import RequestError
from towline.server import events
from towline.server.api.events import job_events
from towline.server.api.service import Service
from towline.server.events import Feed
from towline.store.memory import MemoryStore


def row(number: int, job: str | None = "j1", kind: str = "attempt.finished") -> EventRow:
    return EventRow(number=number, at=number, kind=kind, job=job, data={})


@pytest.fixture
def feed() -> Feed:
    return Feed("default", MemoryStore(), tail_events=5)


def test_recent_events_come_from_memory_if_all_of_them_are_there(feed: Feed) -> None:
    assert feed.recent("j1", 0) is None
    feed.publish([row(number, "j1" if number % 2 else "j2") for number in range(1, 9)])
    assert feed.recent("j1", 2) is None
    assert [found.number for found in feed.recent("j1", 3) or []] == [5, 7]
    assert [found.number for found in feed.recent(None, 6) or []] == [7, 8]
    assert feed.recent("j1", 8) == []


def test_all_of_a_young_job_is_in_memory(feed: Feed) -> None:
    feed.publish([row(number, "old") for number in range(1, 10)])
    feed.publish([row(10, "j1", "job.submitted"), row(11)])
    assert [found.number for found in feed.recent("j1", 0) or []] == [10, 11]
    assert feed.recent("old", 0) is None


def test_readers_get_their_jobs_events_and_hear_of_its_end(feed: Feed) -> None:
    reader, all_of_it = feed.subscribe("j1"), feed.subscribe(None)
    feed.publish([row(1), row(2, "j2", "job.ended"), row(3, None)])
    assert [found.number for found in reader.take()] == [1]
    assert not reader.ended
    feed.publish([row(4, kind="job.ended")])
    assert reader.ended
    assert [found.number for found in all_of_it.take()] == [1, 2, 3, 4]
    feed.unsubscribe(reader)
    feed.publish([row(5)])
    assert [found.number for found in reader.take()] == [4]


def test_a_slow_reader_is_told_to_read_again(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_PENDING", 3)
    reader = feed.subscribe("j1")
    feed.publish([row(number) for number in range(1, 5)])
    assert reader.overflow
    assert len(reader.rows) == 3


def test_after_another_leader_the_memory_is_not_trusted(feed: Feed) -> None:
    feed.publish([row(1), row(2)])
    reader = feed.subscribe("j1")
    feed.restart(2)
    assert not reader.overflow
    assert feed.recent("j1", 1) is not None
    feed.restart(4)
    assert reader.overflow
    assert feed.recent("j1", 1) is None


@pytest.mark.parametrize("cursor", ["x", "other:1", "default:", "default:-1", "default:" + "9" * 30])
def test_other_cursors_are_refused(feed: Feed, cursor: str) -> None:
    with pytest.raises(RequestError):
        feed.number(cursor)


def test_a_cursor_comes_back_as_its_number(feed: Feed) -> None:
    assert feed.number(feed.cursor(17)) == 17
    assert feed.number(None) == 0


async def test_an_end_that_is_committed_and_not_published_yet_is_told() -> None:
    """The store has a commit a moment before the leader publishes it."""

    class Committed(MemoryStore):
        async def events(self, stream: str, after: int, limit: int, job: str | None = None) -> list[EventRow]:
            return [found for found in (row(1), row(2, kind="job.ended")) if found.number > after]

    feed = Feed("default", Committed(), tail_events=5)
    feed.publish([row(1, kind="job.submitted")])
    ended = SimpleNamespace(id="j1", state="succeeded")

    async def find(_: str) -> Any:
        return ended

    service = SimpleNamespace(feed=feed, facts=SimpleNamespace(find=find), settings=None)
    told = b"".join([part async for part in job_events(cast("Service", service), cast("JobRow", ended), 0)])
    assert told.count(b"job.submitted") == 1
    assert told.count(b"job.ended") == 1
