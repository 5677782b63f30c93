"""The server itself and its nodes: what it is, whether it lives, and how to end it."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any
from urllib.parse import urlencode

import msgspec
from litestar import Request, Response, get, post
from msgspec import Struct

from towline.build import build
from towline.errors import NotFound, OperatorError, Unavailable
from towline.model.units import rfc3339
from towline.model.views import GarbageView, LedPoolView, PeerView, ServerView
from towline.server.api.queues import decoded
from towline.server.api.service import OF_ALL_POOLS, Service, service_of
from towline.server.leader.guarding import FAULTS

API_VERSION = 1
AnyRequest = Request[Any, Any, Any]


@get("/v1/server")
async def show_server(request: AnyRequest) -> ServerView:
    """The server: its build, its pool, and what is wrong with it."""
    service = service_of(request)
    leases = [seat.gateway.lease_problem for seat in service.seats]
    return ServerView(
        build=build(),
        api=API_VERSION,
        pool=service.pool,
        term=service.leader.term if service.joined is None else service.joined.of(service.pool).term,
        local=service.access is None,
        pid=os.getpid(),
        problems=[*FAULTS.problems(), *filter(None, leases)],
    )


class ServerList(Struct, kw_only=True):
    servers: list[PeerView]


@get("/v1/servers")
async def list_servers(request: AnyRequest) -> ServerList:
    """All servers of the cluster, and which pools each of them leads."""
    service = service_of(request)
    if service.joined is not None:
        return ServerList(servers=service.joined.views())
    since = rfc3339(service.since_ms)
    led = [
        LedPoolView(pool=seat.pool, term=seat.leader.term, since=rfc3339(seat.leader.since_ms))
        for seat in service.seats
        if seat.leader.ready.is_set()
    ]
    only = PeerView(
        id="",
        name=socket.gethostname(),
        address=service.settings.listen,
        build=build(),
        started_at=since,
        live=True,
        silent_seconds=0.0,
        asked=True,
        leads=led,
    )
    return ServerList(servers=[only])


@post("/v1/server/stop", status_code=202)
async def stop_server(request: AnyRequest) -> None:
    """End cleanly once this is answered; what runs on nodes goes on."""
    service_of(request).stop()


class GcBody(Struct, kw_only=True, forbid_unknown_fields=True):
    dry_run: bool = False


@post("/v1/gc", status_code=200, body=GcBody, asks=OF_ALL_POOLS)
async def collect_garbage(request: AnyRequest) -> GarbageView:
    """Remove now what is older than it is kept, and output beyond its size; ``dry_run``: only say what. That
    size is one for all pools: what is beyond it goes with the pool that is there from the start."""
    body = await decoded(request, GcBody)
    service = service_of(request)
    named = "pool" in request.query_params
    others = [] if named else [name for name in service.seats.names() if name != service.pool]
    found = [await _collected(service, request, pool) for pool in others]
    retention, room = service.retention, service.pool == service.seats.home_pool
    try:
        gone = await (retention.would(room=room) if body.dry_run else retention.collect(room=room))
    except OSError as error:
        raise OperatorError(f"Output could not be removed: {error}") from None
    kept = 0 if service.archive is None else await asyncio.to_thread(service.archive.kept_bytes)
    freed = gone.output_bytes + sum(one.freed_bytes for one in found)
    return GarbageView(
        jobs=gone.jobs + sum(one.jobs for one in found),
        freed_bytes=freed,
        left_bytes=max(0, kept - freed) if body.dry_run else kept,
        artifact_bytes=gone.artifact_bytes + sum(one.artifact_bytes for one in found),
    )


async def _collected(service: Service, request: AnyRequest, pool: str) -> GarbageView:
    """By the leader of another pool. Raises Unavailable where it does not answer so."""
    query = urlencode({"pool": pool}).encode()
    answer = await service.asking.ask(request.scope, pool, "POST", "/v1/gc", query, await request.body())
    if answer.status != 200:
        raise Unavailable(f"The pool {pool} does not answer: repeat the request.")
    return msgspec.json.decode(answer.body, type=GarbageView)


@get("/metrics", media="text/plain")
async def show_metrics(request: AnyRequest) -> Response[bytes]:
    """For Prometheus, of a server of a cluster."""
    metrics = service_of(request).metrics
    if metrics is None:
        raise NotFound("A server of one machine keeps no metrics: `tow server` does.")
    return Response(metrics.shown(), media_type=metrics.CONTENT_TYPE)


@get("/healthz", media="text/plain")
async def healthz() -> Response[str]:
    """The process serves requests."""
    return Response("ok\n", media_type="text/plain")


@get("/readyz", media="text/plain", statuses=(503,))
async def readyz(request: AnyRequest) -> Response[str]:
    """It also leads its pool, or knows who does: submissions are taken."""
    service = service_of(request)
    leader = service.leader
    if leader.ready.is_set() or (service.joined is not None and service.joined.of(service.pool).leader()[0]):
        return Response("ready\n", media_type="text/plain")
    what = leader.stopped or "the pool is being loaded"
    return Response(f"{what}\n", media_type="text/plain", status_code=503)
