"""The feed: committed events on their way to readers, without a look into the store.

The leader publishes what it has committed. A reader is woken when something of its job arrives;
it gets recent events from memory, and older ones from the store.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator

from towline.core.rows import EventRow
from towline.errors import RequestError
from towline.model.units import rfc3339
from towline.model.views import EventView
from towline.store.port import Store

ENDS = ("job.ended", "job.quarantined")
RETRIED = "job.retried"
"""After an end: the job goes on."""
PAGE = 1_000
MAX_DIGITS = 18
"""Of a number in a cursor: what a store can hold."""
MAX_PENDING = 20_000
"""Events that wait for a slow reader in memory; beyond that it reads from the store again."""


def tells_end(rows: list[EventRow]) -> bool:
    """Whether the job's end is among these events, and nothing of it runs again after that."""
    kinds = [row.kind for row in rows if row.kind in ENDS or row.kind == RETRIED]
    return bool(kinds) and kinds[-1] in ENDS


class Subscription:
    """What has arrived for one reader. ``job`` None: everything."""

    def __init__(self, job: str | None) -> None:
        self.job = job
        self.rows: list[EventRow] = []
        self.overflow = False
        self.ended = False
        """The end of the job is among what has arrived."""
        self.woken = asyncio.Event()

    def add(self, row: EventRow) -> None:
        if len(self.rows) >= MAX_PENDING:
            self.overflow = True
        else:
            self.rows.append(row)
        if row.kind in ENDS:
            self.ended = True
        elif row.kind == RETRIED:
            self.ended = False

    def take(self) -> list[EventRow]:
        rows, self.rows = self.rows, []
        self.woken.clear()
        return rows


class Feed:
    """The stream of one pool. All methods are called in the event loop's thread."""

    def __init__(self, stream: str, store: Store, tail_events: int) -> None:
        self.stream = stream
        self._store = store
        self._tail: deque[EventRow] = deque(maxlen=tail_events)
        self._through: int | None = None
        """The number of the last event that readers were told of, or need not be."""
        self._by_job: defaultdict[str | None, list[Subscription]] = defaultdict(list)

    def publish(self, rows: list[EventRow]) -> None:
        """Committed events, in order."""
        self._tail.extend(rows)
        if rows:
            self._through = rows[-1].number
        if not self._by_job:
            return
        for row in rows:
            for reader in self._by_job.get(row.job, ()) if row.job is not None else ():
                reader.add(row)
                reader.woken.set()
            for reader in self._by_job.get(None, ()):
                reader.add(row)
                reader.woken.set()

    def restart(self, event_no: int) -> None:
        """A leadership begins: what another leader has committed meanwhile is not in the tail."""
        if self._through != event_no:
            self._through = event_no
            self._tail.clear()
            for readers in self._by_job.values():
                for reader in readers:
                    reader.overflow = True
                    reader.woken.set()

    @property
    def has_readers(self) -> bool:
        return bool(self._by_job)

    def subscribe(self, job: str | None) -> Subscription:
        reader = Subscription(job)
        self._by_job[job].append(reader)
        return reader

    def unsubscribe(self, reader: Subscription) -> None:
        readers = self._by_job[reader.job]
        readers.remove(reader)
        if not readers:
            del self._by_job[reader.job]

    def recent(self, job: str | None, after: int) -> list[EventRow] | None:
        """The events after ``after`` if all of them are in memory, else None."""
        tail = self._tail
        if not tail:
            return None
        if tail[-1].number <= after:
            return []
        if tail[0].number <= after + 1:
            skip = after + 1 - tail[0].number
            return [row for at, row in enumerate(tail) if at >= skip and (job is None or row.job == job)]
        if job is None:
            return None
        found = [row for row in tail if row.job == job]
        if found and found[0].kind == "job.submitted":
            return [row for row in found if row.number > after]
        return None

    async def past(self, job: str | None, after: int) -> AsyncIterator[list[EventRow]]:
        """Pages of what was committed after ``after`` so far."""
        while True:
            rows = self.recent(job, after)
            if rows is not None:
                if rows:
                    yield rows
                return
            rows = await self._store.events(self.stream, after, PAGE, job)
            if rows:
                yield rows
                after = rows[-1].number
            if len(rows) < PAGE:
                return

    async def kept(self, job: str, after: int) -> AsyncIterator[list[EventRow]]:
        """Pages of what the store has after ``after``, published yet or not."""
        while rows := await self._store.events(self.stream, after, PAGE, job):
            yield rows
            after = rows[-1].number

    # --- cursors: opaque to readers, a map of stream to number for us -------------------------------
    def cursor(self, number: int) -> str:
        return f"{self.stream}:{number}"

    def number(self, cursor: str | None) -> int:
        """Raises RequestError for what is no cursor of this stream."""
        if not cursor:
            return 0
        stream, _, number = cursor.rpartition(":")
        if stream != self.stream or not number.isdecimal() or len(number) > MAX_DIGITS:
            raise RequestError(
                f"{cursor!r} is no cursor of this server: leave it out to start at the beginning."
            )
        return int(number)

    def view(self, row: EventRow) -> EventView:
        return EventView(
            cursor=self.cursor(row.number), at=rfc3339(row.at), kind=row.kind, job=row.job, data=row.data
        )
