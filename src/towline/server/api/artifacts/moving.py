"""Artifacts from and to nodes: what they wrote themselves, and what their attempts have as input."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Request, Response, get, put
from litestar.params import FromPath
from litestar.response import Stream

from towline.core.commands import AttemptKey
from towline.errors import NotFound, RequestError
from towline.server.access.guard import principal_of
from towline.server.api.service import Service, service_of
from towline.server.artifacts.keeping import Keeping
from towline.wire import manifest as wire
from towline.wire.manifest import InputElements, Kept

AnyRequest = Request[Any, Any, Any]
OCTETS = "application/octet-stream"
NUMBER = "X-Towline-Attempt"
PIECE_BYTES = 1024**2


def keeping_of(service: Service) -> Keeping:
    """Raises NotFound on a server of one machine, where artifacts stay on the node."""
    if service.keeping is None:
        raise NotFound("A server of one machine keeps no artifacts: they stay where they are.")
    return service.keeping


def _node(request: AnyRequest) -> str | None:
    who = principal_of(request)
    return None if who is None else who.node


@get("/v1/agent/attempts/{attempt:str}/artifacts")
async def show_kept(request: AnyRequest, attempt: FromPath[str]) -> Kept:
    """What the server has by now of what an attempt wrote."""
    service = service_of(request)
    keeping = keeping_of(service)
    key = await service.rights.writable(_node(request), attempt)
    return await asyncio.to_thread(keeping.kept, key)


@put("/v1/agent/attempts/{attempt:str}/artifacts/{digest:str}", status_code=204)
async def put_blob(request: AnyRequest, attempt: FromPath[str], digest: FromPath[str]) -> None:
    """Take a part of what an attempt wrote, whose SHA-256 is its name."""
    async with _arriving(request, attempt, wire.BLOB_BYTES) as (keeping, key, data):
        await asyncio.to_thread(keeping.put_blob, key, digest, data)


@put("/v1/agent/attempts/{attempt:str}/artifacts", status_code=204)
async def put_manifest(request: AnyRequest, attempt: FromPath[str]) -> None:
    """Take the list of what an attempt wrote, once all its parts are here: it is whole from now on."""
    async with _arriving(request, attempt, wire.MANIFEST_BYTES) as (keeping, key, data):
        await asyncio.to_thread(keeping.finish, key, data)


@asynccontextmanager
async def _arriving(
    request: AnyRequest, attempt: str, most_bytes: int
) -> AsyncGenerator[tuple[Keeping, AttemptKey, bytes]]:
    """What a node brings of an attempt of its own; it has a place among what arrives until this ends."""
    service = service_of(request)
    keeping = keeping_of(service)
    node = _node(request)
    key = await service.rights.writable(node, attempt)
    async with keeping.taking.place(node):
        async with keeping.taking.arriving():
            data = await _body(request, most_bytes)
        yield keeping, key, data


async def _body(request: AnyRequest, most: int) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            raise RequestError(f"The body is longer than {most} bytes.")
    return bytes(data)


# --- inputs -------------------------------------------------------------------------------------------
@get("/v1/agent/attempts/{attempt:str}/inputs/{need:str}")
async def list_inputs(request: AnyRequest, attempt: FromPath[str], need: FromPath[str]) -> InputElements:
    """The elements of a needed task whose artifacts an attempt has as input."""
    service = service_of(request)
    keeping = keeping_of(service)
    of = await service.rights.needed(_node(request), attempt, need)
    stand = await service.rights.succeeded(of)
    written = await asyncio.to_thread(keeping.written, of.job, of.task)
    return InputElements(elements=tuple(one for one in sorted(stand.items()) if one in written))


@get("/v1/agent/attempts/{attempt:str}/inputs/{need:str}/{index:int}", media=OCTETS)
async def show_input(
    request: AnyRequest, attempt: FromPath[str], need: FromPath[str], index: FromPath[int]
) -> Response[bytes]:
    """The manifest of one of them."""
    service = service_of(request)
    keeping = keeping_of(service)
    key = await service.rights.input_of(_node(request), attempt, need, index)
    manifest = await asyncio.to_thread(keeping.manifest, key)
    if manifest is None:
        raise NotFound(f"{need}.{index} has written nothing.")
    body = await asyncio.to_thread(wire.encode, manifest)
    return Response(body, media_type=OCTETS, headers={NUMBER: str(key[3])})


@get("/v1/agent/attempts/{attempt:str}/inputs/{need:str}/{index:int}/{digest:str}", media=OCTETS)
async def read_input(
    request: AnyRequest,
    attempt: FromPath[str],
    need: FromPath[str],
    index: FromPath[int],
    digest: FromPath[str],
) -> Stream:
    """A blob of one of them."""
    service = service_of(request)
    keeping = keeping_of(service)
    key = await service.rights.input_of(_node(request), attempt, need, index)
    size_bytes = await asyncio.to_thread(keeping.blob_bytes, key, digest)
    return Stream(_blob(keeping, key, digest, size_bytes), media_type=OCTETS)


async def _blob(keeping: Keeping, key: AttemptKey, digest: str, size_bytes: int) -> AsyncIterator[bytes]:
    for at in range(0, size_bytes, PIECE_BYTES):
        yield await asyncio.to_thread(keeping.blob, key, digest, at, PIECE_BYTES)
