"""How machines become nodes of a cluster: the authority's certificate, enrolment and renewal."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from litestar import Request, Response, Router, get, post
from msgspec import Struct

from towline.errors import Forbidden, RequestError
from towline.server.access.auditing import tell
from towline.server.access.enrolments import Enrolled
from towline.server.access.guard import principal_of
from towline.server.api.queues import decoded
from towline.server.api.service import Service, service_of

if TYPE_CHECKING:
    from towline.server.access.cluster import Access

AnyRequest = Request[Any, Any, Any]
PEM = "application/x-pem-file"
MOST_OF_AN_ENROLMENT = 64 * 1024
"""Bytes that are read from whoever reaches the port."""


class EnrolBody(Struct, kw_only=True, forbid_unknown_fields=True):
    token: str
    node: str
    name: str
    request: bytes


class RenewBody(Struct, kw_only=True, forbid_unknown_fields=True):
    request: bytes


def access_of(service: Service) -> Access:
    """Raises RequestError for a server of one machine."""
    if service.access is None:
        raise RequestError(
            "This server serves its own machine only, and whoever owns it may do everything: "
            "`tow server` starts one that others can reach."
        )
    return service.access


@get("/v1/authority", media=PEM)
async def show_authority(request: AnyRequest) -> Response[bytes]:
    """The certificate of the cluster's authority; whoever asks compares its fingerprint."""
    return Response(access_of(service_of(request)).authority.certificate, media_type=PEM)


@post("/v1/enrol", status_code=200, request_max_body_size=MOST_OF_AN_ENROLMENT, body=EnrolBody)
async def enrol(request: AnyRequest) -> Enrolled:
    """Make a machine a node, with a join token."""
    body = await decoded(request, EnrolBody)
    service = service_of(request)
    enrolled, link = await access_of(service).enrolments.enrol(
        body.token, body.node, body.name, body.request, partial(_is_taken, service)
    )
    tell(request, f"node {body.name} ({body.node}) by join link {link}")
    return enrolled


async def _is_taken(service: Service, node: str) -> bool:
    """Whether an id is a node's that needs no enrolment: that of this machine, which comes through the
    socket, now or ever; or one that a pool knows from elsewhere."""
    own = service.settings.home / "node" / "id"
    with contextlib.suppress(OSError):
        if own.read_text().strip() == node:
            return True
    if any(node in seat.gateway.connected_nodes for seat in service.seats):
        return True
    return any(id == node for id, _ in await service.store.find_nodes(node))


@post("/v1/agent/renew", status_code=200, body=RenewBody)
async def renew(request: AnyRequest) -> Enrolled:
    """The next certificate of the node that asks."""
    body = await decoded(request, RenewBody)
    who = principal_of(request)
    if who is None or who.node is None:
        raise Forbidden("Only an enrolled node may ask this, with its certificate.")
    return await access_of(service_of(request)).enrolments.renew(who.node, body.request)


enrolment_router = Router("/", route_handlers=[show_authority, enrol, renew])
