"""What is owed for which events, and what becomes of it where it cannot be sent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from msgspec import structs

from towline.core.rows import EventRow
from towline.errors import NotFound
from towline.model.job import JobSpec, Notice, TaskSpec
from towline.server.events import Feed
from towline.server.facts import Facts
from towline.server.webhooks import delivering
from towline.server.webhooks.delivering import KEEP_EVERY_EVENTS, MOST_ATTEMPTS, Deliverer
from towline.server.webhooks.targets import Targets
from towline.store.codec import Damaged
from towline.store.delivery.rows import DeliveryRow
from towline.store.memory import MemoryStore

POOL = "default"


class Known:
    """In place of Facts: jobs whose specs are given, or that raise."""

    def __init__(self, **notices: tuple[Notice, ...] | Exception) -> None:
        self._notices = notices

    async def spec(self, job: str) -> Any:
        found = self._notices.get(job, NotFound(job))
        if isinstance(found, Exception):
            raise found
        return SimpleNamespace(spec=JobSpec(name=job, tasks={"a": TaskSpec()}, notify=found))

    async def by_id(self, job: str) -> Any:
        return SimpleNamespace(id=job, namespace="default")

    async def summary(self, row: Any) -> Any:
        names = ("name", "namespace", "labels", "reason", "message", "submitted_at", "ended_at", "counts")
        return SimpleNamespace(id=row.id, **dict.fromkeys(names))


class Here:
    """A deliverer on a store in memory."""

    def __init__(self, known: Known, targets: Targets) -> None:
        self.store = MemoryStore()
        self.feed = Feed(POOL, self.store, 2 * KEEP_EVERY_EVENTS)
        self.secrets: dict[str, bytes] = {}
        self.known, self.targets = known, targets
        self.deliverer = self.next()
        self._number = 0

    def next(self) -> Deliverer:
        """That of the next server."""
        facts = cast("Facts", self.known)
        return Deliverer(POOL, self.store, self.feed, facts, lambda _, w: self._values(dict(w)), self.targets)

    def _values(self, wanted: dict[str, str]) -> dict[str, bytes]:
        return {key: self.secrets[name] for key, name in wanted.items() if name in self.secrets}

    def happens(self, kind: str, job: str | None = None, **data: Any) -> None:
        self._number += 1
        self.feed.publish([EventRow(number=self._number, at=1, kind=kind, job=job, data=data)])

    async def owed(self, job: str) -> list[DeliveryRow]:
        return await self.store.delivery_of(job)


FAILED = Notice(webhook="http://127.0.0.1:1/x", secret="s", on=("failed",))
ALWAYS = Notice(webhook="http://127.0.0.1:1/y", secret="s")


@pytest.fixture
async def here() -> Here:
    made = Here(Known(a=(FAILED, ALWAYS), b=Damaged("bits"), c=()), Targets(["127.0.0.1"]))
    await made.deliverer.look()  # the first one ever leaves out what has ended
    return made


async def test_each_webhook_that_wants_to_hear_of_it_is_owed_a_message_once(here: Here) -> None:
    here.happens("job.submitted", "a")
    here.happens("job.ended", "b", state="failed")  # does not decode
    here.happens("job.ended", "gone", state="failed")
    here.happens("job.ended", "a", state="succeeded")
    here.happens("job.ended", "a", state="failed")  # it was retried
    await here.deliverer.look()
    await here.next().look()
    assert [(row.number, row.position, row.outcome) for row in await here.owed("a")] == [
        (4, 1, "succeeded"),
        (5, 0, "failed"),
        (5, 1, "failed"),
    ]
    assert await here.store.delivery_cursor(POOL) == 5


async def test_nothing_is_written_for_events_that_nobody_waits_for(here: Here) -> None:
    for _ in range(KEEP_EVERY_EVENTS - 1):
        here.happens("job.ended", "c", state="failed")
    await here.deliverer.look()
    assert await here.store.delivery_cursor(POOL) == 0
    here.happens("attempt.started", "c")
    await here.deliverer.look()
    assert await here.store.delivery_cursor(POOL) == KEEP_EVERY_EVENTS


async def test_a_job_that_is_set_aside_is_told_and_its_end_later(here: Here) -> None:
    here.known._notices |= {"q": (ALWAYS,), "f": (FAILED,)}
    for job in ("q", "f"):
        here.happens("job.quarantined", job, message="an internal error")
    here.happens("job.ended", "q", state="cancelled")
    await here.deliverer.look()
    assert [row.outcome for row in await here.owed("q")] == ["quarantined", "cancelled"]
    assert await here.owed("f") == []
    body = msgspec.json.decode(delivering._body((await here.owed("q"))[0], await here.known.summary(
        await here.known.by_id("q"))))  # fmt: skip
    assert (body["type"], body["job"]["state"]) == ("job.quarantined", "quarantined")


async def test_what_is_not_taken_is_tried_until_it_is_given_up(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "now_ms", lambda: 1_000)
    here.happens("job.ended", "a", state="succeeded")
    await here.deliverer.look()
    (row,) = await here.owed("a")
    await here.deliverer._deliver(row)
    (row,) = await here.owed("a")
    assert (row.state, row.attempts, row.message) == (
        "pending", 1, "there is no secret 's' to sign with: tow secret set s",
    )  # fmt: skip
    assert 1_000 <= row.next_at <= 6_000
    here.secrets["s"] = b"key"
    await here.deliverer._deliver(structs.replace(row, attempts=MOST_ATTEMPTS - 1))
    (row,) = await here.owed("a")
    assert (row.state, row.attempts, row.next_at) == ("failed", MOST_ATTEMPTS, 1_000)
    assert "ConnectError" in (row.message or "")
