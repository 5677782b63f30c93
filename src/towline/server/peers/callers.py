"""Whom a request is from that another server has passed on.

A server shows the leader a certificate of the cluster's authority that names it as a server. From such a
connection, and no other, a header is taken which says where the request came from; a token is judged by the
leader itself.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec
from litestar.types import Scope
from msgspec import Struct

from towline.identity.roles import EVERYWHERE, LOCAL, Principal
from towline.server.access.enrolments import Enrolments
from towline.server.access.tokens import Tokens

HEADER = b"towline-caller"
CONNECTIONS, STREAMS = 100, 280
"""So many connections at most a server has to another one for requests that are answered soon, and for what
lasts as long as its caller likes."""
PER_SERVER = CONNECTIONS + STREAMS + 20
"""So many it is let have there: some end later than it knows."""
SUBJECT = "server-"
"""What the subject of a server's certificate begins with; a node's never does, see enrolments.py."""
PASSED_ON = "towline_passed_on"
"""In the state of a request that came so: it is not passed on once more."""
POOL = "towline_pool"
"""In the state of a request: the name of the pool that it is about."""


class Caller(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``source``: its address. ``local``: it came through that server's socket. ``node``, ``issued_at``: what
    its certificate said. ``pool``: which one the request is about; empty: the server has not said (an older
    one)."""

    source: str
    local: bool = False
    node: str | None = None
    issued_at: int = 0
    pool: str = ""


def encode(caller: Caller) -> bytes:
    return msgspec.json.encode(caller)


def is_server(certificate: bytes) -> bool:
    """Whether a peer's certificate (DER, signed by the authority) is a server's."""
    from towline.identity.certificates import subject_of

    try:
        return subject_of(certificate).startswith(SUBJECT)
    except ValueError:
        return False


def take(scope: Scope, token: str | None, tokens: Tokens, enrolments: Enrolments) -> Principal | None:
    """Who the caller is, as another server says it and the token proves it; its address stands in ``scope``
    from now on."""
    scope["state"][PASSED_ON] = True
    told = dict(scope["headers"]).get(HEADER)
    if told is None:
        return None
    try:
        caller = msgspec.json.decode(told, type=Caller)
    except msgspec.DecodeError:
        return None
    cast("dict[str, Any]", scope)["client"] = (caller.source, 0)
    if caller.pool:
        scope["state"][POOL] = caller.pool
    if caller.local:
        return LOCAL
    if caller.node is not None:
        if not enrolments.admits(caller.node, caller.issued_at):
            return None
        return Principal(name=f"node {caller.node}", role=None, namespace=EVERYWHERE, node=caller.node)
    return None if token is None else tokens.principal(token)
