"""Tokens and the audit: of servers of a cluster only."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Router, delete, get, post
from litestar.params import FromPath, QueryParameter
from msgspec import Struct

from towline.errors import Forbidden, RequestError
from towline.identity.joining import JoinLink
from towline.identity.roles import EVERYWHERE, check_namespace
from towline.model import units
from towline.model.access_views import (
    AuditEntryView,
    AuditView,
    JoinTokenView,
    JoinView,
    TokenList,
    TokenView,
    WhoView,
)
from towline.model.units import rfc3339
from towline.server.access.auditing import tell
from towline.server.access.guard import principal_of
from towline.server.access.rules import ADMIN
from towline.server.access.tokens import JOIN
from towline.server.api.cluster.enrolment import access_of
from towline.server.api.queues import decoded
from towline.server.api.service import MOST, service_of
from towline.store.access import TokenRow

AnyRequest = Request[Any, Any, Any]
Limit = Annotated[int, QueryParameter(ge=1, le=1000)]
Before = Annotated[int | None, QueryParameter(ge=1, le=MOST)]
JOIN_LIFETIME = "1h"
PEM = "application/x-pem-file"


class TokenBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """``lifetime`` is a duration as in a job file; None: until the token is taken back."""

    name: str
    role: str
    lifetime: str | None = None
    namespace: str | None = None
    """None: that of the request; for an admin who is made by one of all namespaces, all (``*``)."""


class JoinBody(Struct, kw_only=True, forbid_unknown_fields=True):
    lifetime: str = JOIN_LIFETIME
    address: str | None = None
    """HOST or HOST:PORT as nodes reach this server; None: as it is configured."""
    pool: str | None = None
    """The pool that the node joins; None: the one that is there from the start."""


@get("/v1/whoami")
async def whoami(request: AnyRequest) -> WhoView:
    """Who the caller is."""
    who = principal_of(request)
    if who is None or who.role is None:
        raise Forbidden("A node has no role.")
    return WhoView(name=who.name, role=who.role.word, namespace=who.namespace)


# --- tokens -------------------------------------------------------------------------------------------
@get("/v1/tokens")
async def list_tokens(request: AnyRequest) -> TokenList:
    """API tokens, and join links that nobody has used yet."""
    service = service_of(request)
    tokens = access_of(service).tokens
    every = _is_everywhere(request)
    mine, home = service.namespace, service.seats.home_pool
    return TokenList(
        tokens=[_view(row) for row in tokens.list() if every or row.namespace == mine],
        joins=[_join_view(row, home) for row in tokens.joins()] if every else [],
    )


@post("/v1/tokens", status_code=201, body=TokenBody)
async def create_token(request: AnyRequest) -> TokenView:
    """Make an API token; its text is shown this once."""
    body = await decoded(request, TokenBody)
    tokens = access_of(service_of(request)).tokens
    lifetime_ms = None if body.lifetime is None else _duration(body.lifetime)
    namespace = _namespace(request, body.namespace, body.role)
    row, text = await tokens.create(body.name, body.role, namespace, lifetime_ms)
    tell(request, _named(row))
    return _view(row, text)


@post("/v1/tokens/join", status_code=201, body=JoinBody)
async def create_join(request: AnyRequest) -> JoinView:
    """A join link with a token of its own: one node, once."""
    body = await decoded(request, JoinBody)
    service = service_of(request)
    access = access_of(service)
    pool = service.seats.home.pool if body.pool is None else service.seats.known(body.pool)
    host, port = service.settings.reached_at(body.address)
    row, text = await access.tokens.create_join(_duration(body.lifetime), pool)
    others: tuple[tuple[str, int], ...] = ()
    if service.joined is not None and body.address is None:
        others = service.joined.other_places()
    link = JoinLink(host=host, port=port, token=text, ca=access.authority.fingerprint, others=others)
    assert row.expires_at is not None
    tell(request, _named(row))
    return JoinView(id=row.id, link=str(link), expires_at=rfc3339(row.expires_at), pool=pool)


@delete("/v1/tokens/{token:str}", status_code=200)
async def delete_token(request: AnyRequest, token: FromPath[str]) -> TokenView:
    """Take back an API token (by its name or id) or a join link (by its id); the latter has no name."""
    within = None if _is_everywhere(request) else service_of(request).namespace
    row = await access_of(service_of(request)).tokens.delete(token, within)
    tell(request, _named(row))
    return _view(row)


# --- the audit ----------------------------------------------------------------------------------------
@get("/v1/audit")
async def list_audit(request: AnyRequest, limit: Limit = 100, before: Before = None) -> AuditView:
    """Newest first; ``before`` is the ``seq`` of the last one seen."""
    service = service_of(request)
    access_of(service)
    rows = await service.store.audit_list(before, limit + 1)
    shown = [
        AuditEntryView(
            seq=row.seq,
            at=rfc3339(row.at),
            who=row.who,
            action=row.action,
            target=row.target,
            status=row.status,
            source=row.source,
        )
        for row in rows[:limit]
    ]
    return AuditView(entries=shown, next_before=shown[-1].seq if len(rows) > limit else None)


def _is_everywhere(request: AnyRequest) -> bool:
    who = principal_of(request)
    return who is not None and who.namespace == EVERYWHERE


def _namespace(request: AnyRequest, given: str | None, role: str) -> str:
    """Of a new token. Raises Forbidden where its maker is of another one, RequestError."""
    mine = service_of(request).namespace
    if _is_everywhere(request):
        if given is None:
            return EVERYWHERE if role == ADMIN.word else mine
        return given if given == EVERYWHERE else check_namespace(given)
    if given not in (None, mine):
        raise Forbidden(f"You are of the namespace {mine}: your tokens are of it too.")
    return mine


def _duration(text: str) -> int:
    try:
        return units.parse_duration(text)
    except ValueError as error:
        raise RequestError(f"lifetime is {text!r}, but {error}") from None


def _named(row: TokenRow) -> str:
    """A token as the audit names it."""
    return f"join link {row.id}" if row.kind == JOIN else f"token {row.name} ({row.id}), {row.role}"


def _join_view(row: TokenRow, home: str) -> JoinTokenView:
    return JoinTokenView(
        id=row.id,
        created_at=rfc3339(row.created_at),
        expires_at=None if row.expires_at is None else rfc3339(row.expires_at),
        pool=row.pool or home,
    )


def _view(row: TokenRow, text: str | None = None) -> TokenView:
    return TokenView(
        id=row.id,
        name=row.name,
        role=row.role,
        namespace=row.namespace,
        created_at=rfc3339(row.created_at),
        expires_at=None if row.expires_at is None else rfc3339(row.expires_at),
        token=text,
    )


access_router = Router(
    "/",
    route_handlers=[
        whoami,
        list_tokens,
        create_token,
        create_join,
        delete_token,
        list_audit,
    ],
)
