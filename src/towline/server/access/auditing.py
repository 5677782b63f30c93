"""Writes a row of the audit for each request that was to change something, before it is answered."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import quote

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from towline.identity.roles import Principal
from towline.server.access.audit import Audit
from towline.server.access.guard import PRINCIPAL
from towline.server.access.rules import LINK, WEBSOCKET
from towline.server.access.tokens import now_ms
from towline.store.access import AuditRow

READING = ("GET", "HEAD", "OPTIONS")
NOT_AUDITED = ("/v1/plan", LINK)
MAX_TARGET = 300
_SWITCHING = 101


def audited(app: ASGIApp, audit: Audit) -> ASGIApp:
    """``app``, with its audit. Reading is not audited; a session inside a container is."""

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        method = cast("dict[str, Any]", scope).get("method", WEBSOCKET)
        if scope["type"] not in ("http", "websocket") or method in READING or scope["path"] in NOT_AUDITED:
            await app(scope, receive, send)
            return
        target = scope["path"]  # routing shortens it

        async def sending(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept", "websocket.close"):
                await _record(audit, scope, method, target, message)
            await send(message)

        await app(scope, receive, sending)

    return door


async def _record(audit: Audit, scope: Scope, method: str, target: str, message: Message) -> None:
    state = scope["state"]
    if message["type"] == "websocket.close" and state.get("towline_accepted"):
        return  # the end of one whose begin is kept
    state["towline_accepted"] = True
    who = cast("Principal | None", state.get(PRINCIPAL))
    client = scope["client"]
    shown = _shown(target)
    template = cast("dict[str, Any]", scope).get("path_template", shown)
    status = message.get("status", _SWITCHING if message["type"] == "websocket.accept" else 403)
    await audit.record(
        AuditRow(
            seq=0,
            at=now_ms(),
            who="nobody" if who is None else who.name,
            namespace="" if who is None else who.namespace,
            action=f"{method} {template}",
            target=shown,
            status=cast("int", status),
            source=client[0] if client else "socket",
        )
    )


def _shown(path: str) -> str:
    """A path on one line and not too long, whoever has sent it."""
    path = path[:MAX_TARGET]
    if path.isprintable():
        return path
    return "".join(one if one.isprintable() else quote(one, errors="replace") for one in path)
