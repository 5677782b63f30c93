"""Artifacts of an element: a page of what there is, and the content of a file.

The content is a sequence of pieces, each ``length (4 bytes, big endian), SHA-256 of the data, data``; an
empty piece says that it is whole. A length of all ones says that the rest cannot be had, and the piece behind
it why, in a sentence. The digest is made on the node. The next piece is asked of the node when
the one before is handed on: what a slow reader waits for waits on the node's disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterator
from typing import Annotated, Any, NamedTuple

from litestar import Request, get
from litestar.params import FromPath, FromQuery, Parameter
from litestar.response import Stream
from msgspec.structs import replace

from towline.core.commands import AttemptKey
from towline.core.rows import AttemptRow, TaskRow
from towline.errors import Conflict, Damaged, NotFound, RequestError, Unavailable
from towline.model.states import ENDED, AttemptState, ElementState
from towline.model.units import LATEST_MS, rfc3339
from towline.model.views import ArtifactPage, ArtifactView
from towline.server.api.artifacts.stored import Piece, find_stored
from towline.server.api.logs import find_attempt
from towline.server.api.service import MOST, Service, service_of
from towline.wire.artifacts import FAILURE, Artifact, ArtifactsAnswer, ArtifactsCall

AnyRequest = Request[Any, Any, Any]
AttemptNumber = Annotated[int | None, Parameter(ge=1, le=MOST)]
Offset = Annotated[int, Parameter(ge=0, le=MOST)]
LENGTH = struct.Struct(">I")
_OVER = (AttemptState.FINISHED.value, AttemptState.LOST.value)


@get("/v1/jobs/{job:str}/tasks/{task:str}/elements/{index:int}/artifacts")
async def list_artifacts(
    request: AnyRequest,
    job: FromPath[str],
    task: FromPath[str],
    index: FromPath[int],
    attempt: AttemptNumber = None,
    cursor: FromQuery[str | None] = None,
) -> ArtifactPage:
    """A page of what an element wrote below TOW_OUT."""
    service = service_of(request)
    place = await _place(service, job, task, index, attempt)
    try:
        after = bytes.fromhex(cursor or "")
    except ValueError:
        raise RequestError(f"{cursor!r} is no cursor of artifacts: leave it out to start anew.") from None
    stored = await find_stored(service.keeping, place.standing)
    if stored is not None:
        entries, last = stored.page(after)
    else:
        answer = _checked(await _ask(service, place, after=after))
        entries, last = answer.entries, answer.following
    following = None if last is None else last.hex()
    return ArtifactPage(artifacts=[_view(entry) for entry in entries], next_cursor=following)


@get(
    "/v1/jobs/{job:str}/tasks/{task:str}/elements/{index:int}/artifacts/content",
    media="application/octet-stream",
)
async def read_artifact(
    request: AnyRequest,
    job: FromPath[str],
    task: FromPath[str],
    index: FromPath[int],
    file: FromQuery[str],
    attempt: AttemptNumber = None,
    offset: Offset = 0,
) -> Stream:
    """The content of one file, in pieces with digests."""
    service = service_of(request)
    place = await _place(service, job, task, index, attempt)
    stored = await find_stored(service.keeping, place.standing)
    if stored is not None:
        size, found = await stored.open(file, offset)
        return _stream(_packed(found), size)
    # The first piece is read here, so that what is wrong is told as an error and not by breaking off.
    first = _checked(await _ask(service, place, path=file, offset=offset))
    return _stream(_pieces(service, place, file, offset, first), first.size_bytes)


def _stream(pieces: AsyncIterator[bytes], size_bytes: int) -> Stream:
    headers = {"Cache-Control": "no-store", "X-Towline-Size": str(size_bytes)}
    return Stream(pieces, media_type="application/octet-stream", headers=headers)


async def _packed(pieces: AsyncIterator[Piece]) -> AsyncIterator[bytes]:
    try:
        async for digest, data in pieces:
            yield LENGTH.pack(len(data)) + digest + data
    except Damaged as error:
        said = str(error).encode()
        yield LENGTH.pack(FAILURE) + LENGTH.pack(len(said)) + hashlib.sha256(said).digest() + said
        return
    yield LENGTH.pack(0) + hashlib.sha256(b"").digest()


async def _pieces(
    service: Service, place: _Place, file: str, offset: int, first: ArtifactsAnswer
) -> AsyncIterator[bytes]:
    """Breaks off, without the last piece, where the file changes or cannot be read any more. While one
    piece is being taken, the next one is on its way."""
    answer, coming = first, None
    try:
        while answer.data:
            offset += len(answer.data)
            coming = asyncio.ensure_future(_ask(service, place, path=file, offset=offset))
            coming.add_done_callback(lambda done: done.cancelled() or done.exception())
            yield LENGTH.pack(len(answer.data)) + answer.digest + answer.data
            answer = await coming
            if answer.error is not None or answer.version != first.version:
                return
        if offset == first.size_bytes:
            yield LENGTH.pack(0) + answer.digest
    finally:
        if coming is not None:
            coming.cancel()


async def _ask(service: Service, place: _Place, **fields: Any) -> ArtifactsAnswer:
    """What the node says. Raises Unavailable: in a cluster only where the server does not know better."""
    try:
        return await service.gateway.artifacts(place.node, replace(place.call, **fields))
    except Unavailable:
        if service.keeping is None or place.standing is None:
            raise
        return _nothing(fields.get("path"))


class _Place(NamedTuple):
    """Where artifacts are: the node that has them, and what to ask of it. ``standing``: whose they are, where
    they are a success's, which the server of a cluster has too."""

    node: str
    call: ArtifactsCall
    standing: AttemptKey | None


async def _place(service: Service, job: str, task: str, index: int, number: int | None) -> _Place:
    """Raises NotFound, Conflict."""
    row = await service.facts.find(job)
    of = await service.facts.task_row(row, task)
    if not of.first <= index <= of.last:
        raise NotFound(f"Task {task!r} has no element {index}: its indexes are {of.first} to {of.last}.")
    attempt = await find_attempt(service, of, index, number)
    if number is not None:
        if attempt is None:
            raise NotFound(f"Element {task}.{index} has no attempt {number}.")
        if attempt.state not in _OVER:
            raise Conflict(f"Attempt {number} of {task}.{index} has not ended yet: it is {attempt.state}.")
    state, newest = await _state(service, of, index), await _newest(service, of, index)
    if state == ElementState.SUCCEEDED and attempt is not None and number in (None, newest):
        standing = ArtifactsCall(request=0, job=row.id, task=of.task, index=index)
        return _Place(attempt.node, standing, (row.id, of.task, index, attempt.number))
    if number is None:
        raise Conflict(_why_none(task, index, state, attempt))
    assert attempt is not None
    apart = ArtifactsCall(request=0, job=row.id, task=of.task, index=index, attempt=number)
    return _Place(attempt.node, apart, None)


async def _newest(service: Service, task: TaskRow, index: int) -> int:
    newest = await find_attempt(service, task, index, None)
    return 0 if newest is None else newest.number


async def _state(service: Service, task: TaskRow, index: int) -> str:
    row = await service.facts.find(task.job)
    page = await service.facts.page(row, task.name, str(index - 1), 1, None)
    return page.elements[0].state


def _nothing(path: str | None) -> ArtifactsAnswer:
    """In a cluster an element succeeds once what it wrote is at the server: this one wrote nothing."""
    if path is None:
        return ArtifactsAnswer(request=0)
    return ArtifactsAnswer(request=0, error=f"There is no file {path[:200]!r}.", kind="not_found")


def _why_none(task: str, index: int, state: str, attempt: AttemptRow | None) -> str:
    where = f"{task}.{index}"
    if state not in ENDED:
        return f"{where} has not ended yet ({state}): its artifacts are there when it has succeeded."
    if attempt is None:
        return f"{where} never ran: it was {state}."
    kept = f"what its attempt wrote is kept apart: add --attempt {attempt.number}"
    return f"{where} has not succeeded ({state}); {kept}."


def _checked(answer: ArtifactsAnswer) -> ArtifactsAnswer:
    if answer.error is not None:
        raise (NotFound if answer.kind == "not_found" else RequestError)(answer.error)
    return answer


def _view(entry: Artifact) -> ArtifactView:
    return ArtifactView(
        path=entry.path,
        kind=entry.kind,
        size_bytes=entry.size_bytes,
        modified_at=rfc3339(min(max(entry.modified_ms, 0), LATEST_MS)) or "",
        mode=f"{entry.mode:03o}",
        why=entry.why,
    )
