"""Artifacts of an element: a page of what there is, and the content of a file.

The content is a sequence of pieces, each ``length (4 bytes, big endian), SHA-256 of the data, data``; an
empty piece says that it is whole. The digest is made on the node. The next piece is asked of the node when
the one before is handed on: what a slow reader waits for waits on the node's disk.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Annotated, Any

from litestar import Request, get
from litestar.params import FromPath, FromQuery, Parameter
from litestar.response import Stream
from msgspec.structs import replace

from towline.core.rows import AttemptRow, TaskRow
from towline.errors import Conflict, NotFound, RequestError
from towline.model.states import ENDED, AttemptState, ElementState
from towline.model.units import rfc3339
from towline.model.views import ArtifactPage, ArtifactView
from towline.server.api.logs import find_attempt
from towline.server.api.service import MOST, Service, service_of
from towline.wire.artifacts import Artifact, ArtifactsAnswer, ArtifactsCall

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
    node, call = await _call(service, job, task, index, attempt)
    try:
        after = bytes.fromhex(cursor or "")
    except ValueError:
        raise RequestError(f"{cursor!r} is no cursor of artifacts: leave it out to start anew.") from None
    answer = _checked(await service.gateway.artifacts(node, _with(call, after=after)))
    following = None if answer.following is None else answer.following.hex()
    return ArtifactPage(artifacts=[_view(entry) for entry in answer.entries], next_cursor=following)


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
    node, call = await _call(service, job, task, index, attempt)
    # The first piece is read here, so that what is wrong is told as an error and not by breaking off.
    first = _checked(await service.gateway.artifacts(node, _with(call, path=file, offset=offset)))
    headers = {"Cache-Control": "no-store", "X-Towline-Size": str(first.size_bytes)}
    pieces = _pieces(service, node, _with(call, path=file), offset, first)
    return Stream(pieces, media_type="application/octet-stream", headers=headers)


async def _pieces(
    service: Service, node: str, call: ArtifactsCall, offset: int, first: ArtifactsAnswer
) -> AsyncIterator[bytes]:
    """Breaks off, without the last piece, where the file changes or cannot be read any more. While one
    piece is being taken, the next one is on its way."""
    answer, coming = first, None
    try:
        while answer.data:
            offset += len(answer.data)
            coming = asyncio.ensure_future(service.gateway.artifacts(node, _with(call, offset=offset)))
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


def _with(call: ArtifactsCall, **fields: Any) -> ArtifactsCall:
    return replace(call, **fields)


async def _call(
    service: Service, job: str, task: str, index: int, number: int | None
) -> tuple[str, ArtifactsCall]:
    """The node that keeps them, and what to ask of it. Raises NotFound, Conflict."""
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
        return attempt.node, ArtifactsCall(request=0, job=row.id, task=of.task, index=index)
    if number is None:
        raise Conflict(_why_none(task, index, state, attempt))
    assert attempt is not None
    return attempt.node, ArtifactsCall(request=0, job=row.id, task=of.task, index=index, attempt=number)


async def _newest(service: Service, task: TaskRow, index: int) -> int:
    newest = await find_attempt(service, task, index, None)
    return 0 if newest is None else newest.number


async def _state(service: Service, task: TaskRow, index: int) -> str:
    row = await service.facts.find(task.job)
    page = await service.facts.page(row, task.name, str(index - 1), 1, None)
    return page.elements[0].state


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
        modified_at=rfc3339(min(max(entry.modified_ms, 0), 253_402_300_799_999)) or "",
        mode=f"{entry.mode:03o}",
        why=entry.why,
    )
