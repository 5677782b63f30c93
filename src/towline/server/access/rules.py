"""Which role each route asks for: the one table of it. A route that is missing asks for an admin, and
a test fails."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from towline.identity.roles import Role


class Special(Enum):
    """Rules that are no role."""

    PUBLIC = "public"
    """Whoever reaches the port, without a token."""
    NODE = "node"
    """An enrolled node, with its certificate."""


class Everywhere(NamedTuple):
    """This role in all namespaces: for what belongs to none."""

    role: Role


Rule = Role | Special | Everywhere

PUBLIC, NODE = Special.PUBLIC, Special.NODE
VIEWER, SUBMITTER, ADMIN = Role.VIEWER, Role.SUBMITTER, Role.ADMIN
OPERATOR = Everywhere(ADMIN)
LINK = "/v1/agent/link"
ATTEMPTS = "/v1/agent/attempts/"
"""Where nodes bring and get artifacts, each a hundred times a second if need be."""
WEBSOCKET = "WEBSOCKET"

RULES: dict[tuple[str, str], Rule] = {
    ("GET", "/healthz"): PUBLIC,
    ("GET", "/readyz"): PUBLIC,
    ("GET", "/metrics"): VIEWER,
    ("GET", "/v1/authority"): PUBLIC,
    ("POST", "/v1/enrol"): PUBLIC,  # shows a join token
    (WEBSOCKET, LINK): NODE,
    ("POST", "/v1/agent/renew"): NODE,
    ("GET", "/v1/agent/attempts/{attempt}/artifacts"): NODE,
    ("PUT", "/v1/agent/attempts/{attempt}/artifacts"): NODE,
    ("PUT", "/v1/agent/attempts/{attempt}/artifacts/{digest}"): NODE,
    ("GET", "/v1/agent/attempts/{attempt}/inputs/{need}"): NODE,
    ("GET", "/v1/agent/attempts/{attempt}/inputs/{need}/{index}"): NODE,
    ("GET", "/v1/agent/attempts/{attempt}/inputs/{need}/{index}/{digest}"): NODE,
    ("GET", "/v1/openapi.json"): VIEWER,
    ("GET", "/v1/server"): VIEWER,
    ("GET", "/v1/servers"): VIEWER,
    ("POST", "/v1/server/stop"): OPERATOR,
    ("POST", "/v1/gc"): OPERATOR,
    ("GET", "/v1/whoami"): VIEWER,
    ("GET", "/v1/nodes"): VIEWER,
    ("GET", "/v1/nodes/{node}"): VIEWER,
    ("DELETE", "/v1/nodes/{node}"): OPERATOR,
    ("POST", "/v1/nodes/{node}/drain"): OPERATOR,
    ("POST", "/v1/nodes/{node}/undrain"): OPERATOR,
    ("GET", "/v1/usage"): VIEWER,
    ("GET", "/v1/jobs"): VIEWER,
    ("POST", "/v1/jobs"): SUBMITTER,
    ("GET", "/v1/jobs/{job}"): VIEWER,
    ("GET", "/v1/jobs/{job}/spec"): VIEWER,
    ("GET", "/v1/jobs/{job}/events"): VIEWER,
    ("GET", "/v1/jobs/{job}/wait"): VIEWER,
    ("GET", "/v1/jobs/{job}/why"): VIEWER,
    ("POST", "/v1/jobs/{job}/cancel"): SUBMITTER,
    ("POST", "/v1/jobs/{job}/retry"): SUBMITTER,
    ("POST", "/v1/jobs/{job}/priority"): SUBMITTER,
    ("GET", "/v1/jobs/{job}/tasks/{task}"): VIEWER,
    ("GET", "/v1/jobs/{job}/tasks/{task}/elements/{index}/logs"): VIEWER,
    ("GET", "/v1/jobs/{job}/tasks/{task}/elements/{index}/artifacts"): VIEWER,
    ("GET", "/v1/jobs/{job}/tasks/{task}/elements/{index}/artifacts/content"): VIEWER,
    (WEBSOCKET, "/v1/jobs/{job}/tasks/{task}/elements/{index}/exec"): SUBMITTER,
    ("POST", "/v1/plan"): VIEWER,
    ("POST", "/v1/offer"): VIEWER,
    ("GET", "/v1/pools"): VIEWER,
    ("POST", "/v1/pools"): OPERATOR,
    ("GET", "/v1/pools/{pool}"): VIEWER,
    ("GET", "/v1/events"): VIEWER,
    ("GET", "/v1/events/export"): Everywhere(VIEWER),  # the whole pool's history
    ("GET", "/v1/queues"): VIEWER,
    ("GET", "/v1/queues/{name}"): VIEWER,
    ("PUT", "/v1/queues/{name}"): OPERATOR,
    ("DELETE", "/v1/queues/{name}"): OPERATOR,
    ("GET", "/v1/secrets"): SUBMITTER,
    ("PUT", "/v1/secrets/{name}"): SUBMITTER,
    ("DELETE", "/v1/secrets/{name}"): SUBMITTER,
    ("GET", "/v1/images"): VIEWER,
    ("POST", "/v1/images/pull"): SUBMITTER,
    ("POST", "/v1/images/remove"): OPERATOR,
    ("POST", "/v1/images/gc"): OPERATOR,
    ("GET", "/v1/registries"): OPERATOR,
    ("PUT", "/v1/registries/{registry}"): OPERATOR,
    ("DELETE", "/v1/registries/{registry}"): OPERATOR,
    ("GET", "/v1/tokens"): ADMIN,
    ("POST", "/v1/tokens"): ADMIN,
    ("POST", "/v1/tokens/join"): OPERATOR,
    ("DELETE", "/v1/tokens/{token}"): ADMIN,
    ("GET", "/v1/audit"): OPERATOR,
}


def rule_of(method: str, template: str) -> Rule:
    """``template`` is a route's path with names in braces; HEAD is as GET."""
    return RULES.get(("GET" if method == "HEAD" else method, template), OPERATOR)
