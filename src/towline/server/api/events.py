"""Events: a job's as a stream that ends with the job, and all of them page by page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream
from msgspec import Struct

from towline.core.rows import EventRow, JobRow
from towline.model.views import EventView
from towline.server.api.service import OF_A_POOL, Service, service_of
from towline.server.events import Feed, Subscription, tells_end
from towline.server.facts import has_ended

AnyRequest = Request[Any, Any, Any]
KEEP_ALIVE_S = 15.0
_encoder = msgspec.json.Encoder()


class EventPage(Struct, kw_only=True):
    """``next_cursor`` is where to go on, also where nothing has happened yet after ``events``."""

    events: list[EventView]
    next_cursor: str


@get("/v1/events", asks=OF_A_POOL)
async def list_events(
    request: AnyRequest,
    cursor: FromQuery[str | None] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=10_000)] = 1000,
    job: FromQuery[str | None] = None,
) -> EventPage:
    """A page of the events after a cursor: the pool's own, and those of jobs of the namespace."""
    service = service_of(request)
    feed = service.feed
    after = feed.number(cursor)
    of = (await service.facts.find(job)).id if job is not None else None
    rows = await service.store.events(feed.stream, after, limit, of)
    last = rows[-1].number if rows else after
    shown = [row for row in rows if await _is_of(service, row)]
    return EventPage(events=[feed.view(row) for row in shown], next_cursor=feed.cursor(last))


async def _is_of(service: Service, row: EventRow) -> bool:
    """Whether an event is of the pool, or of a job of the request's namespace."""
    return row.job is None or await service.facts.owns(row.job)


@get("/v1/jobs/{job:str}/events", media="text/event-stream")
async def stream_events(
    request: AnyRequest, job: FromPath[str], cursor: FromQuery[str | None] = None
) -> Stream:
    """A job's events as server-sent events, until it has ended."""
    service = service_of(request)
    after = service.feed.number(cursor or request.headers.get("last-event-id"))
    row = await service.find(job)
    return Stream(
        job_events(service, row, after),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store"},
    )


async def job_events(service: Service, row: JobRow, after: int) -> AsyncIterator[bytes]:
    """Messages with the job's events after ``after``, until its end has been told."""
    feed = service.feed
    reader = feed.subscribe(row.id)
    try:
        async for rows in feed.past(row.id, after):
            yield message(feed, rows)
            after = rows[-1].number
            if tells_end(rows) and has_ended(await service.facts.find(row.id)):
                return
        # Read after subscribing. Its end may be committed and not published yet, or lie before ``after``:
        # the store has the events of a commit together with its rows.
        if has_ended(await service.facts.find(row.id)) and not reader.ended:
            async for rows in feed.kept(row.id, after):
                yield message(feed, rows)
            return
        async for part in _live(service, reader, after):
            yield part
    finally:
        feed.unsubscribe(reader)


async def _live(service: Service, reader: Subscription, after: int) -> AsyncIterator[bytes]:
    feed, coalesce_s = service.feed, service.settings.coalesce_ms / 1000
    loop = asyncio.get_running_loop()
    told_at_s = loop.time() - coalesce_s
    while True:
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                await reader.woken.wait()
        except TimeoutError:
            yield b": still here\n\n"
            continue
        # Under load a message carries what came in a while. An end, and what breaks a silence, goes at once.
        await _gather(reader, told_at_s + coalesce_s)
        if reader.overflow:
            return  # too slow, or another leader wrote meanwhile: the reader comes back with its cursor
        rows = [row for row in reader.take() if row.number > after]
        if rows:
            yield message(feed, rows)
            after = rows[-1].number
            told_at_s = loop.time()
            if tells_end(rows):
                return


async def _gather(reader: Subscription, until_s: float) -> None:
    loop = asyncio.get_running_loop()
    while not reader.ended and not reader.overflow and (left_s := until_s - loop.time()) > 0:
        reader.woken.clear()
        try:
            async with asyncio.timeout(left_s):
                await reader.woken.wait()
        except TimeoutError:
            return


def message(feed: Feed, rows: list[EventRow]) -> bytes:
    """One server-sent event with all rows."""
    data = _encoder.encode([feed.view(row) for row in rows])
    return b"id: %s\ndata: %s\n\n" % (feed.cursor(rows[-1].number).encode(), data)
