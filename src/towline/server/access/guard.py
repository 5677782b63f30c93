"""The two doors of a server, and the guard of its routes.

Whoever comes through the Unix socket is its owner and may do all. Whoever comes over the network is
who its token or its certificate says, or nobody; each route says in rules.py whom it wants.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from towline.errors import Forbidden, StoreError, Unauthenticated
from towline.identity.roles import DEFAULT, EVERYWHERE, LOCAL, Principal, check_namespace
from towline.server.access.enrolments import Enrolments
from towline.server.access.rules import NODE, PUBLIC, WEBSOCKET, Everywhere, rule_of
from towline.server.access.tokens import Tokens
from towline.server.peers import callers
from towline.server.process.http import CERTIFICATE
from towline.server.process.refusing import not_now

PRINCIPAL = "towline_principal"
NAMESPACE_HEADER = "towline-namespace"
_BEARER = "bearer "

CatchUp = Callable[[], Awaitable[None]]


def principal_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal | None:
    """Who has asked; None: nobody that is known."""
    return connection.scope["state"].get(PRINCIPAL)


def local_door(app: ASGIApp) -> ASGIApp:
    """Everybody is the owner of the socket."""

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"][PRINCIPAL] = LOCAL
        await app(scope, receive, send)

    return door


def remote_door(
    app: ASGIApp, tokens: Tokens, enrolments: Enrolments, catch_up: CatchUp | None = None
) -> ASGIApp:
    """Tells who comes, without refusing anybody: that is the guard's. ``catch_up``: reads what other servers
    have made of tokens and enrolments, where there are such."""
    identify = _identify(tokens, enrolments)

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        who = identify(scope)
        if who is None and catch_up is not None and _may_be_new(scope, tokens):
            try:
                await catch_up()
            except StoreError as error:  # not that he is nobody: that is not known
                await not_now(scope, send, str(error))
                return
            who = identify(scope)
        scope["state"][PRINCIPAL] = who
        await app(scope, receive, send)

    return door


def _identify(tokens: Tokens, enrolments: Enrolments) -> Callable[[Scope], Principal | None]:
    def identify(scope: Scope) -> Principal | None:
        shown = scope["state"].get(CERTIFICATE)
        if shown is not None:
            from towline.identity.certificates import issued_at_ms, subject_of

            node = subject_of(shown)
            if node.startswith(callers.SUBJECT):
                return callers.take(scope, _token(scope), tokens, enrolments)
            if not enrolments.admits(node, issued_at_ms(shown)):
                return None
            return Principal(name=f"node {node}", role=None, namespace=EVERYWHERE, node=node)
        token = _token(scope)
        return None if token is None else tokens.principal(token)

    return identify


def _may_be_new(scope: Scope, tokens: Tokens) -> bool:
    """Whether who is not known here could be known to another server, and that matters. Certificates are the
    authority's."""
    if _is_public(scope):
        return False
    if scope["state"].get(CERTIFICATE) is not None:
        return True
    token = _token(scope)
    return token is not None and tokens.may_be_new(token)


def _is_public(scope: Scope) -> bool:
    method = cast("dict[str, Any]", scope).get("method", WEBSOCKET)
    return rule_of(method, scope["path"]) is PUBLIC


def _token(scope: Scope) -> str | None:
    text = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
    return text[len(_BEARER) :].strip() if text[: len(_BEARER)].lower() == _BEARER else None


async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Litestar's guard of all routes; one that is not async would be run in another thread each time.
    Raises Unauthenticated or Forbidden."""
    scope = cast("dict[str, Any]", connection.scope)
    method = scope.get("method", WEBSOCKET)
    rule = rule_of(method, scope["path_template"])
    who = principal_of(connection)
    if rule is PUBLIC or who is LOCAL:
        return
    if who is None:
        raise Unauthenticated(
            "Show a token: `Authorization: Bearer tow_…`. An admin makes one with `tow token create`."
        )
    if rule is NODE:
        if who.node is None:
            raise Forbidden("Only an enrolled node may ask this, with its certificate.")
        return
    wanted = rule.role if isinstance(rule, Everywhere) else rule
    if not who.may(wanted):
        mine = "a node" if who.role is None else who.role.word
        raise Forbidden(
            f"{method} {scope['path']} asks for the role {wanted.word}; {who.name} has {mine}. An admin "
            f"makes a token with it: tow token create NAME --role {wanted.word}"
        )
    if isinstance(rule, Everywhere) and who.namespace != EVERYWHERE:
        raise Forbidden(
            f"{method} {scope['path']} asks for the role {wanted.word} in all namespaces; {who.name} has it "
            f"in {who.namespace} alone."
        )


def namespace_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """Where a request works. Raises Forbidden, RequestError."""
    return namespace_in(connection.scope)


def namespace_in(scope: Scope) -> str:
    """The namespace of who asks, or of those who may all the one that the request names. Raises Forbidden,
    RequestError."""
    who = cast("Principal | None", scope["state"].get(PRINCIPAL))
    shown = dict(scope["headers"]).get(NAMESPACE_HEADER.encode())
    named = None if shown is None else shown.decode("latin-1")
    if who is None or who.namespace == EVERYWHERE:
        return DEFAULT if named is None else check_namespace(named)
    if named not in (None, who.namespace):
        raise Forbidden(f"{who.name} is of the namespace {who.namespace}, not of {named[:200]!r}.")
    return who.namespace
