"""Output of elements as NDJSON: ``{"stream","at","offset","data"}``, data in base64. Where not all of it can
be shown, the last lines have a ``note`` for people, and no data."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from litestar import Request, get
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream

from towline.core.commands import attempt_id
from towline.core.rows import AttemptRow, ElementRow, JobRow, TaskRow
from towline.errors import NotFound
from towline.model.states import ATTEMPT_ENDED, ENDED
from towline.server.api.service import MOST, Service, service_of
from towline.server.facts import has_ended
from towline.server.logs.reading import Output
from towline.server.output import Merger, OutputError, Piece, newer
from towline.server.output import follow as following

AnyRequest = Request[Any, Any, Any]
_encoder = msgspec.json.Encoder()


class LogLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``at`` is unix milliseconds of the writing, where it is known."""

    stream: str
    at: int | None
    offset: int
    data: bytes
    note: str | None = None


class Wanted(NamedTuple):
    """What of an attempt's output is asked for. ``since``: what was written at or after that, unix ms."""

    tail: int | None
    stream: str
    follow: bool
    since: int | None


@get("/v1/jobs/{job:str}/tasks/{task:str}/elements/{index:int}/logs", media="application/x-ndjson")
async def logs(
    request: AnyRequest,
    job: FromPath[str],
    task: FromPath[str],
    index: FromPath[int],
    attempt: Annotated[int | None, QueryParameter(ge=1, le=MOST)] = None,
    tail: Annotated[int | None, QueryParameter(ge=0, le=MOST)] = None,
    follow: FromQuery[bool] = False,
    stream: FromQuery[Literal["stdout", "stderr", "both"]] = "both",
    since: Annotated[int | None, QueryParameter(ge=0)] = None,
) -> Stream:
    """Output of an element as NDJSON; ``data`` in it is base64."""
    service = service_of(request)
    row = await service.facts.find(job)
    task_row = await service.facts.task_row(row, task)
    if not task_row.first <= index <= task_row.last:
        raise NotFound(
            f"Task {task!r} has no element {index}: its indexes are {task_row.first} to {task_row.last}."
        )
    found = await find_attempt(service, task_row, index, attempt)
    if found is None and attempt is not None:
        raise NotFound(f"Element {task}.{index} has no attempt {attempt}.")
    if found is None and not follow:
        return _stream(_nothing())
    wanted = Wanted(tail, stream, follow, since)
    if found is None:
        return _stream(_once_started(service, row, task_row, index, wanted))
    return _stream(_lines(service, found, await open_output(service, found, wanted), wanted))


async def find_attempt(service: Service, task: TaskRow, index: int, number: int | None) -> AttemptRow | None:
    """One attempt of an element, the newest where no number is given; None where there is none."""
    if number is None:
        element = await find_element(service, task, index)
        if element is None:
            return None
        number = element.number
    return await service.store.attempt(task.job, task.task, index, number)


async def find_element(service: Service, task: TaskRow, index: int) -> ElementRow | None:
    page = await service.store.elements(task.job, task.task, index - 1, index)
    return page.elements[0] if page.elements else None


class Opened(NamedTuple):
    output: Output
    merger: Merger
    first: list[Piece]


async def open_output(service: Service, attempt: AttemptRow, wanted: Wanted) -> Opened:
    """Start to read, so that what is wrong is told as an error and not in the middle of a stream.

    Raises Unavailable where the node alone has it and is not connected.
    """
    key = (attempt.job, attempt.task, attempt.index, attempt.number)

    async def node_name() -> str:
        nodes = await service.store.nodes(service.pool)
        return next((node.name for node in nodes if node.id == attempt.node), attempt.node)

    output = Output(
        attempt_id(key),
        attempt.node,
        service.archive,
        service.gateway.read_log,
        lambda: service.store.attempt(*key),
        node_name,
        follow=wanted.follow,
    )
    streams = ["stdout", "stderr"] if wanted.stream == "both" else [wanted.stream]
    merger = Merger(streams, output.read)
    try:
        return Opened(output, merger, await merger.start(wanted.tail))
    except OutputError as error:
        if attempt.state not in ATTEMPT_ENDED:
            return Opened(output, merger, [])  # it has not written anything yet
        raise NotFound(f"The output of attempt {attempt_id(key)} cannot be read: {error}") from None


async def _lines(
    service: Service, attempt: AttemptRow, opened: Opened, wanted: Wanted
) -> AsyncIterator[bytes]:
    output, merger, first = opened
    while True:
        try:
            async for pieces in following(merger, first, forever=wanted.follow):
                if shown := newer(pieces, wanted.since):
                    yield b"".join(_line(piece) for piece in shown)
            break
        except OutputError:
            row = await service.store.attempt(attempt.job, attempt.task, attempt.index, attempt.number)
            if not wanted.follow or row is None or row.state in ATTEMPT_ENDED:
                break
            first = []
            await asyncio.sleep(0.1)
    for note in await output.notes():
        yield _encoder.encode(LogLine(stream="stderr", at=None, offset=0, data=b"", note=note)) + b"\n"


async def _once_started(
    service: Service, row: JobRow, task: TaskRow, index: int, wanted: Wanted
) -> AsyncIterator[bytes]:
    """Wait for the element's first attempt, then follow it; nothing where it ends without one."""
    reader = service.feed.subscribe(row.id)
    try:
        while True:
            found = await find_attempt(service, task, index, None)
            if found is not None:
                break
            if await _will_never_start(service, row, task, index):
                return
            await reader.woken.wait()
            reader.take()
    finally:
        service.feed.unsubscribe(reader)
    async for part in _lines(service, found, await open_output(service, found, wanted), wanted):
        yield part


async def _will_never_start(service: Service, row: JobRow, task: TaskRow, index: int) -> bool:
    page = await service.facts.page(row, task.name, str(index - 1), 1, None)
    return page.elements[0].state in ENDED or has_ended(await service.facts.find(row.id))


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


def _line(piece: Piece) -> bytes:
    line = LogLine(stream=piece.stream, at=piece.at, offset=piece.offset, data=piece.data)
    return _encoder.encode(line) + b"\n"


def _stream(parts: AsyncIterator[bytes]) -> Stream:
    return Stream(parts, media_type="application/x-ndjson", headers={"Cache-Control": "no-store"})
