"""``/v1/nodes``: what they have, and taking them out of service."""

from __future__ import annotations

from typing import Any

from litestar import Request, Router, delete, get, post
from litestar.params import FromPath, FromQuery
from msgspec import Struct

from towline.core.commands import Drain, ForgetNode, Undrain
from towline.errors import NotFound, RequestError
from towline.model import units
from towline.model.views import NodeView
from towline.server.access.auditing import tell
from towline.server.api.queues import decoded
from towline.server.api.service import OF_ALL_POOLS, Service, service_of

AnyRequest = Request[Any, Any, Any]


class NodeList(Struct, kw_only=True):
    nodes: list[NodeView]


class DrainBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """``deadline``: a duration, after which what still runs is stopped and queued again; None: never."""

    deadline: str | None = None


@get("/v1/nodes", asks=OF_ALL_POOLS)
async def list_nodes(request: AnyRequest) -> NodeList:
    """All nodes, with what is free on them."""
    return NodeList(nodes=service_of(request).leader.opinion(lambda pool: pool.nodes_view()))


@get("/v1/nodes/{node:str}", asks=OF_ALL_POOLS)
async def show_node(request: AnyRequest, node: FromPath[str]) -> NodeView:
    """One node."""
    return _view(service_of(request), node)


@post("/v1/nodes/{node:str}/drain", status_code=200, body=DrainBody, asks=OF_ALL_POOLS)
async def drain(request: AnyRequest, node: FromPath[str]) -> NodeView:
    """Let a node take nothing new."""
    body = await decoded(request, DrainBody)
    service = service_of(request)
    found = _view(service, node)
    await service.leader.ask(Drain(node=found.id, deadline_ms=_duration(body.deadline)))
    return _view(service, found.id)


@post("/v1/nodes/{node:str}/undrain", status_code=200, asks=OF_ALL_POOLS)
async def undrain(request: AnyRequest, node: FromPath[str]) -> NodeView:
    """Let a drained node take work again."""
    service = service_of(request)
    found = _view(service, node)
    await service.leader.ask(Undrain(node=found.id))
    return _view(service, found.id)


@delete("/v1/nodes/{node:str}", status_code=200, asks=OF_ALL_POOLS)
async def forget_node(request: AnyRequest, node: FromPath[str], force: FromQuery[bool] = False) -> None:
    """It is no member any more: its certificate is worth nothing, what it had is lost. ``force``: a node
    that is connected is cut off first."""
    service = service_of(request)
    id = _known(service, node)
    known = _find(service, id)
    tell(request, f"node {id}" if known is None else f"node {known.name} ({id})")
    was_member = await _forget_member(service, id, force)
    try:
        await service.leader.ask(ForgetNode(node=id))
    except NotFound:
        if not was_member:  # a node that has enrolled and never come is no node of the pool
            raise


def _known(service: Service, name: str) -> str:
    """The id of a node by its id or the name that is shown, which may differ from the one that it enrolled
    under; else of one that has enrolled for this pool and never come. Raises NotFound."""
    try:
        return _view(service, name).id
    except NotFound:
        enrolments = None if service.access is None else service.access.enrolments
        id = None if enrolments is None else enrolments.find(name)
        if id is None or enrolments is None or _find(service, id) is not None:
            raise
        if not _is_member(service, id):
            raise  # its own pool knows whether it is connected
        return id


def _is_member(service: Service, id: str) -> bool:
    """Whether a node that has enrolled, or none that is known, has done so for the request's pool."""
    assert service.access is not None
    return (service.access.enrolments.pool_of(id) or service.seats.home_pool) == service.pool


async def _forget_member(service: Service, id: str, force: bool) -> bool:
    """Take back a node's enrolment and cut it off. False where it has none, or is another pool's member by
    now. Raises RequestError where it is connected, unless forced."""
    enrolments = None if service.access is None else service.access.enrolments
    if enrolments is None:
        return False
    if enrolments.find(id) is not None and not _is_member(service, id):
        return False
    found = _find(service, id)
    if not force and found is not None and found.state in ("ready", "draining"):
        raise RequestError(
            f"Node {found.name} is connected: drain it, end its agent (tow agent), then forget it. One that "
            "is not to be trusted any more is cut off with --force."
        )
    was_member = await enrolments.forget(id)
    if was_member:
        service.gateway.cut_off(id)
    return was_member


def _find(service: Service, id: str) -> NodeView | None:
    try:
        return _view(service, id)
    except NotFound:
        return None


def _view(service: Service, name: str) -> NodeView:
    def find(pool: Any) -> NodeView:
        id = pool.node_id(name)
        return next(view for view in pool.nodes_view() if view.id == id)

    return service.leader.opinion(find)


def _duration(text: str | None) -> int | None:
    try:
        return None if text is None else units.parse_duration(text)
    except ValueError as error:
        raise RequestError(f"deadline is {text!r}, but {error}") from None


nodes_router = Router("/", route_handlers=[list_nodes, show_node, drain, undrain, forget_node])
