"""``/v1/pools``: which there are, how they stand, and one more; and how a job would fit into one."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from litestar import Request, Router, get, post
from litestar.params import FromPath
from msgspec import Struct

from towline.core.pool import Pool
from towline.core.routing import Offer
from towline.errors import Conflict, RequestError
from towline.model.names import ANY_POOL, POOL_NAME, POOL_NAME_RULE
from towline.model.units import rfc3339
from towline.model.views import PoolView
from towline.server.access.auditing import tell
from towline.server.api.cluster.enrolment import access_of
from towline.server.api.queues import decoded
from towline.server.api.service import Service, service_of
from towline.server.intake import PREPARED, Submission, prepared_from

AnyRequest = Request[Any, Any, Any]
PATIENCE_S = 5.0
"""So long the answer waits for a leader of a new pool."""
LOOK_S = 0.05


class PoolBody(Struct, kw_only=True, forbid_unknown_fields=True):
    pool: str


class PoolList(Struct, kw_only=True):
    pools: list[PoolView]


@get("/v1/pools")
async def list_pools(request: AnyRequest) -> PoolList:
    """All pools, in order of their names; of one whose leader does not answer, only who leads it."""
    service = service_of(request)
    names = service.seats.names()
    found = await service.asking.views(request.scope, names, PoolView)
    return PoolList(pools=[found.get(name) or _led(service, name) for name in names])


@get("/v1/pools/{pool:str}")
async def show_pool(request: AnyRequest, pool: FromPath[str]) -> PoolView:
    """One pool."""
    service = service_of(request)
    view = _led(service, service.seats.known(pool))
    return service.leader.opinion(lambda its: _stands(its, view))


@post("/v1/pools", status_code=201, body=PoolBody)
async def create_pool(request: AnyRequest) -> PoolView:
    """Make a pool, without nodes; a server leads it at once."""
    body = await decoded(request, PoolBody)
    service = service_of(request)
    access_of(service)
    if not POOL_NAME.match(body.pool) or body.pool == ANY_POOL:
        raise RequestError(f"pool is {body.pool[:100]!r}, but {POOL_NAME_RULE}, and not {ANY_POOL}")
    if not await service.store.pool_create(body.pool):
        raise Conflict(f"There is a pool {body.pool} already.")
    tell(request, body.pool)
    service.seats.add(body.pool)
    await _until_led(service, body.pool)
    return _led(service, body.pool)


@post("/v1/offer", status_code=200, body=Submission)
async def offer(request: AnyRequest) -> Offer:
    """How well a job would fit into the pool now, to choose among pools by. The body is that of a
    submission."""
    service = service_of(request)
    # A server that asks itself has read the body already.
    prepared = request.scope["state"].get(PREPARED) or await prepared_from(await request.body())
    return service.leader.opinion(lambda pool: pool.offer(prepared.spec, service.namespace))


async def _until_led(service: Service, pool: str) -> None:
    """Whoever comes next finds it led, if that is soon."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while _led(service, pool).leader is None:  # noqa: ASYNC110 - another server may lead it
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        return


def _led(service: Service, pool: str) -> PoolView:
    """Who leads it, as far as is known here."""
    view = PoolView(pool=pool)
    if service.joined is not None:
        service.joined.of(pool).show(view)
    elif (seat := service.seats.get(pool)) is not None and seat.leader.ready.is_set():
        view.leader, view.address = socket.gethostname(), service.settings.listen
        view.term, view.since = seat.leader.term, rfc3339(seat.leader.since_ms)
    return view


def _stands(pool: Pool, view: PoolView) -> PoolView:
    nodes = [node for node in pool.nodes_view() if node.state == "ready"]
    queues = [queue for queue in pool.queues_view() if queue.parent is None]
    view.nodes = len(nodes)
    view.cpu, view.cpu_free = sum(node.cpu for node in nodes), sum(node.cpu_free for node in nodes)
    view.memory_bytes = sum(node.memory_bytes for node in nodes)
    view.memory_free_bytes = sum(node.memory_free_bytes for node in nodes)
    view.gpus = sum(len(node.gpus) for node in nodes)
    view.jobs = pool.unfinished_jobs
    view.active, view.queued = pool.active_count, sum(queue.queued for queue in queues)
    return view


pools_router = Router("/", route_handlers=[list_pools, show_pool, create_pool, offer])
