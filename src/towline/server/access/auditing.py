"""Writes a row of the audit for each request that was to change something, before it is answered.

Refused requests of nobody known are bounded, since whoever reaches the port can send them: flood.py.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast
from urllib.parse import quote

from litestar.connection import ASGIConnection
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from towline.identity.roles import Principal
from towline.server.access.audit import Audit
from towline.server.access.flood import WINDOW_S, Flood
from towline.server.access.guard import PRINCIPAL
from towline.server.access.rules import ATTEMPTS, LINK, WEBSOCKET
from towline.server.access.tokens import now_ms
from towline.store.access import AuditRow

READING = ("GET", "HEAD", "OPTIONS")
NOT_AUDITED = ("/v1/plan", "/v1/offer", LINK)
NOBODY = "nobody"
MAX_TARGET = 300
_SWITCHING = 101
_ABOUT = "towline_about"


def tell(connection: ASGIConnection[Any, Any, Any, Any], about: str) -> None:
    """Name in the audit what a request has made or removed, where its path does not."""
    connection.scope["state"][_ABOUT] = about


def audited(app: ASGIApp, audit: Audit, window_s: float = WINDOW_S) -> ASGIApp:
    """``app``, with its audit. Reading is not audited; a session inside a container is."""
    recorder = _Recorder(audit, window_s)

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        method = cast("dict[str, Any]", scope).get("method", WEBSOCKET)
        if scope["type"] not in ("http", "websocket") or method in READING or _is_left_out(scope["path"]):
            await app(scope, receive, send)
            return
        target = scope["path"]  # routing shortens it

        async def sending(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept", "websocket.close"):
                await recorder.record(scope, method, target, message)
            await send(message)

        await app(scope, receive, sending)

    return door


def _is_left_out(path: str) -> bool:
    return path in NOT_AUDITED or path.startswith(ATTEMPTS)


class _Recorder:
    def __init__(self, audit: Audit, window_s: float) -> None:
        self._audit = audit
        self._window_s = window_s
        self._flood: Flood | None = None
        self._writing: asyncio.Task[None] | None = None

    async def record(self, scope: Scope, method: str, target: str, message: Message) -> None:
        state = scope["state"]
        if message["type"] == "websocket.close" and state.get("towline_accepted"):
            return  # the end of one whose begin is kept
        state["towline_accepted"] = True
        who = cast("Principal | None", state.get(PRINCIPAL))
        client = scope["client"]
        status = message.get("status", _SWITCHING if message["type"] == "websocket.accept" else 403)
        source = client[0] if client else "socket"
        if who is None and status >= 400 and not self._is_told(source):
            return
        shown = _shown(target)
        template = cast("dict[str, Any]", scope).get("path_template", shown)
        about = cast("str | None", state.get(_ABOUT))
        await self._audit.record(
            AuditRow(
                seq=0,
                at=now_ms(),
                who=NOBODY if who is None else who.name,
                namespace="" if who is None else who.namespace,
                action=f"{method} {template}",
                target=shown if about is None else f"{shown}: {_shown(about)}",
                status=cast("int", status),
                source=source,
            )
        )

    def _is_told(self, source: str) -> bool:
        if self._flood is None:
            self._flood = Flood()
            asyncio.get_running_loop().call_later(self._window_s, self._end_window)
        return self._flood.told(source)

    def _end_window(self) -> None:
        flood, self._flood = self._flood, None
        if flood is not None and flood.counts:
            self._writing = asyncio.ensure_future(self._write(flood.counts))

    async def _write(self, counts: list[tuple[str, int]]) -> None:
        rows = [
            AuditRow(
                seq=0,
                at=now_ms(),
                who=NOBODY,
                namespace="",
                action="refused",
                target=f"{count} further requests within {self._window_s:g} s",
                status=401,
                source=group,
            )
            for group, count in counts
        ]
        await asyncio.gather(*(self._audit.record(row) for row in rows))


def _shown(path: str) -> str:
    """A path on one line and not too long, whoever has sent it."""
    path = path[:MAX_TARGET]
    if path.isprintable():
        return path
    return "".join(one if one.isprintable() else quote(one, errors="replace") for one in path)
