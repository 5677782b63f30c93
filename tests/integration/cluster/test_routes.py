"""Every route, over the network, without a token and with one of each role."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import cast

from litestar import Litestar
from litestar.routes import HTTPRoute, WebSocketRoute
from tests.integration.cluster.cluster_server import ROLES, ClusterServer
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from towline.identity.roles import Role
from towline.server.access.rules import NODE, PUBLIC, RULES, WEBSOCKET, Everywhere, Rule, rule_of
from towline.server.api.app import make_app
from towline.server.api.service import Service

ENDING = ("POST", "/v1/server/stop")
"""What ends the server is asked last."""


def routes() -> list[tuple[str, str]]:
    """(method, template) of every route of the application."""
    settings = SimpleNamespace(body_limit_bytes=1)
    app = cast("Litestar", make_app(cast("Service", SimpleNamespace(settings=settings))))
    found: list[tuple[str, str]] = []
    for route in app.routes:
        template = re.sub(r":[a-z]+}", "}", route.path)
        if isinstance(route, HTTPRoute):
            found += [(str(method), template) for method in route.methods if method != "OPTIONS"]
        elif isinstance(route, WebSocketRoute):
            found.append((WEBSOCKET, template))
    return sorted(found, key=lambda one: one == ENDING)


def test_every_route_has_its_rule_and_every_rule_its_route() -> None:
    known = {(method, template) for method, template in routes() if method != "HEAD"}
    assert sorted(known - RULES.keys()) == []
    assert sorted(RULES.keys() - known) == []


async def test_each_route_asks_for_its_role(cluster: ClusterServer) -> None:
    wrong: list[str] = []
    for method, template in routes():
        path = re.sub(r"{index}", "0", template)
        path = re.sub(r"{[a-z]+}", "nothing", path)
        rule = rule_of(method, template)
        for role in (None, *ROLES):
            wanted = 401 if role is None else 403
            refused = rule is not PUBLIC and (role is None or rule is NODE or _is_beyond(role, rule))
            if (method, template) == ENDING and not refused:
                continue  # tried elsewhere: it ends the server
            status = await _ask(cluster, method, path, role)
            if (status == wanted) != refused or (not refused and status in (401, 403)):
                wrong.append(f"{method} {path} as {role}: {status}")
    assert wrong == []


def _is_beyond(role: str, rule: Rule) -> bool:
    """Whether a rule asks for more than a role: the admin's token is of all namespaces, the others of one."""
    if isinstance(rule, Everywhere):
        return role != "admin"
    return isinstance(rule, Role) and Role[role.upper()] < rule


async def _ask(cluster: ClusterServer, method: str, path: str, role: str | None) -> int:
    token = None if role is None else cluster.tokens[role]
    if method == WEBSOCKET:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        try:
            async with connect(
                f"wss{cluster.url.removeprefix('https')}{path}",
                ssl=cluster.context(),
                additional_headers=headers,
                proxy=None,
            ):
                return 101
        except InvalidStatus as error:
            # A refused WebSocket is 403 for whoever it was; who is nobody counts as 401 here.
            return 401 if role is None and error.response.status_code == 403 else error.response.status_code
    async with cluster.caller(token) as http, http.stream(method, path) as answer:
        return answer.status_code  # what it streams is not waited for


async def test_what_is_no_token_opens_nothing(cluster: ClusterServer) -> None:
    async with cluster.caller() as http:
        for shown in ("Bearer x", "Bearer tow_0_0", "Basic YTpi", "tow_x"):
            answer = await http.get("/v1/jobs", headers={"authorization": shown})
            assert answer.status_code == 401, shown
            assert "tow token create" in answer.json()["detail"]
