"""Webhooks of ended jobs: found in the events, owed by rows of the store, tried until they are taken.

A job's end is an event of the commit that ended it. The deliverer looks through the events, keeps a row
for each webhook that wants to hear of it, and sends what is due; both survive the server. A message that
was sent and whose row was not written before the server died is sent again, under the same id.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping

import msgspec
import structlog
from msgspec import structs

from towline.core.rows import EventRow
from towline.errors import NotFound, StoreError
from towline.model.views import JobView
from towline.server.events import ENDS, Feed
from towline.server.facts import Facts
from towline.server.webhooks.targets import NotTaken, Refused, Targets
from towline.store.codec import Damaged
from towline.store.delivery.rows import DeliveryRow
from towline.store.port import Store

LOOK_EVERY_S = 1.0
KEEP_EVERY_EVENTS = 10_000
"""How far was looked is written down at least so often, also where nothing is owed."""
MOST_ATTEMPTS = 15
FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 3600.0
AT_ONCE = 16
QUARANTINED = "quarantined"
"""The outcome of a job that was set aside for an operator: it has not ended, and is told all the same."""

Secret = Callable[[str, Mapping[str, str]], dict[str, bytes]]
"""Values, by any keys, for a namespace and the same keys by its secrets' names, as far as they are stored."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def wait_s(attempts: int, chance: float) -> float:
    """How long after so many failed attempts: full jitter below a bound that doubles; ``chance`` 0 to 1."""
    return chance * min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempts - 1))


class Deliverer:
    """Of one pool, on the server that leads it."""

    def __init__(
        self, pool: str, store: Store, feed: Feed, facts: Facts, secret: Secret, targets: Targets
    ) -> None:
        self._pool = pool
        self._store = store
        self._feed = feed
        self._facts = facts
        self._secret = secret
        self._targets = targets
        self._looked: int | None = None
        self._kept = 0
        self._log = structlog.get_logger("webhooks")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
                due = await self._store.delivery_due(self._pool, now_ms(), AT_ONCE)
                await asyncio.gather(*(self._deliver(row) for row in due))
            except StoreError as error:
                self._log.warning("webhooks wait for the store", reason=str(error))
                due = []
            if len(due) < AT_ONCE:
                await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Keep rows for what has ended since the last look."""
        if self._looked is None:
            self._looked = await self._begin()
        async for rows in self._feed.past(None, self._looked):
            owed = [row for event in rows if event.kind in ENDS for row in await self._owed(event)]
            through = rows[-1].number
            if owed or through - self._kept >= KEEP_EVERY_EVENTS:
                await self._store.delivery_add(self._pool, through, owed)
                self._kept = through
            self._looked = through

    async def _begin(self) -> int:
        """Where an earlier server has stopped looking; the first one ever leaves out what has ended."""
        found = await self._store.delivery_cursor(self._pool)
        if found is None:
            found = (await self._store.counters(self._pool))[1]
            await self._store.delivery_add(self._pool, found, [])
        self._kept = found
        return found

    async def _owed(self, event: EventRow) -> list[DeliveryRow]:
        outcome = QUARANTINED if event.kind == "job.quarantined" else str(event.data["state"])
        try:
            notices = (await self._facts.spec(str(event.job))).spec.notify
        except NotFound:
            return []  # it ended, and was deleted by retention before we came
        except Damaged as error:
            self._log.error("a job's end is told to nobody", job=event.job, reason=str(error))
            return []
        return [
            DeliveryRow(
                pool=self._pool,
                number=event.number,
                position=position,
                job=str(event.job),
                outcome=outcome,
                next_at=event.at,
            )
            for position, notice in enumerate(notices)
            if outcome in notice.on
        ]

    async def _deliver(self, row: DeliveryRow) -> None:
        tried = structs.replace(row, attempts=row.attempts + 1, message=None)
        try:
            await self._send(row)
            done = structs.replace(tried, state="delivered", next_at=now_ms())
        except (Refused, NotFound, Damaged) as error:
            done = structs.replace(tried, state="failed", next_at=now_ms(), message=str(error))
        except NotTaken as error:
            if tried.attempts >= MOST_ATTEMPTS:
                done = structs.replace(tried, state="failed", next_at=now_ms(), message=str(error))
            else:
                later = now_ms() + int(1000 * wait_s(tried.attempts, random.random()))
                done = structs.replace(tried, next_at=later, message=str(error))
        if done.state == "failed":
            self._log.warning("a webhook is given up", job=row.job, reason=done.message)
        await self._store.delivery_put(done)

    async def _send(self, row: DeliveryRow) -> None:
        """Raises Refused, NotTaken, NotFound."""
        notice = (await self._facts.spec(row.job)).spec.notify[row.position]
        job = await self._facts.by_id(row.job)
        secret = self._secret(job.namespace, {"": notice.secret}).get("")
        if secret is None:
            raise NotTaken(
                f"there is no secret {notice.secret!r} to sign with: tow secret set {notice.secret}"
            )
        id = f"{row.job}-{row.number}-{row.position}"
        body = _body(row, await self._facts.summary(job))
        from towline.server.webhooks import sending  # few send, and it loads much

        await sending.send(notice.webhook, id, now_ms() // 1000, body, secret, self._targets)


def _body(row: DeliveryRow, job: JobView) -> bytes:
    """What a receiver reads: the job as it stands, and as what it ended."""
    fields = ("id", "name", "namespace", "labels", "reason", "message", "submitted_at", "ended_at", "counts")
    shown = {"state": row.outcome} | {name: getattr(job, name) for name in fields}
    kind = "job.quarantined" if row.outcome == QUARANTINED else "job.ended"
    return msgspec.json.encode({"type": kind, "job": shown})
