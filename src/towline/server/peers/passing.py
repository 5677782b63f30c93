"""Passes requests on to the leader of their pool, whole, as they came: the layer between a server's doors and
its API.

Nothing waits here for a leader: where there is none, or it cannot be reached, the caller is told to repeat
the request, which then finds the next one. A request that another server has passed on goes no further.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from towline.core.leadership import ServerRow
from towline.identity.roles import LOCAL, Principal
from towline.server.access.guard import PRINCIPAL
from towline.server.access.rules import PUBLIC, WEBSOCKET, rule_of
from towline.server.peers.anywhere import is_anywhere
from towline.server.peers.callers import HEADER, PASSED_ON, POOL, Caller, encode
from towline.server.process.http import CERTIFICATE
from towline.server.process.refusing import not_now, refuse

LOOK_S = 0.25
"""How often it is looked whether the leader that has a request still leads."""
NO_LEADER = "The pool has no leader at the moment, or it does not answer: repeat the request."
HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
})  # fmt: skip
NOT_PASSED = HOP_BY_HOP | {HEADER, b"host"}

Headers = list[tuple[bytes, bytes]]


class NotReached(Exception):
    """The leader does not answer, or leads no more; nothing of an answer has been sent on."""


class Full(NotReached):
    """This server passes on as much as it may already; says so."""


class Knowledge(Protocol):
    """What is known of who leads; coordination/storelease.py has it."""

    @property
    def id(self) -> str: ...
    def leader_of(self, pool: str) -> ServerRow | None: ...
    def free_in_ms(self, pool: str) -> int: ...


class Carrier(Protocol):
    """How a request gets to another server. Raises NotReached as long as nothing of the answer was sent."""

    async def http(
        self, to: ServerRow, scope: Scope, headers: Headers, receive: Receive, send: Send
    ) -> None: ...
    async def websocket(
        self, to: ServerRow, scope: Scope, headers: Headers, receive: Receive, send: Send
    ) -> None: ...


def passing(
    app: ASGIApp,
    home: str,
    known: Knowledge,
    leads: Callable[[str], bool],
    carrier: Carrier,
    name: str,
) -> ASGIApp:
    """``app`` for what this server answers itself. ``home``: the pool of a request that names none.
    ``leads``: whether this server leads a pool. ``name`` is how the audit names this server's socket."""

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await app(scope, receive, send)
            return
        pool = scope["state"].get(POOL, home)
        if leads(pool) or _is_ours(scope):
            await app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await receive()  # websocket.connect, which comes once
        leader = known.leader_of(pool)
        if leader is None or leader.id == known.id or scope["state"].get(PASSED_ON):
            await not_now(scope, send, NO_LEADER, known.free_in_ms(pool))
            return
        if not _path(scope).startswith(b"/"):
            await refuse(scope, send, 400, "This is no path of a server: it has to begin with /.")
            return
        headers = [(key, value) for key, value in scope["headers"] if key not in NOT_PASSED]
        headers += [(b"host", leader.address.encode()), (HEADER, encode(_caller(scope, name, pool)))]
        carry = carrier.http if scope["type"] == "http" else carrier.websocket
        answer = _Answer(send)
        try:
            await _while_it_leads(
                carry(leader, scope, headers, receive, answer.send), lambda: _is_leader(known, pool, leader)
            )
        except Full as full:
            await not_now(scope, send, str(full))
        except NotReached:
            if answer.begun:
                raise ConnectionAbortedError("the leader is gone in the middle of an answer") from None
            await not_now(scope, send, NO_LEADER, known.free_in_ms(pool))

    return door


class _Answer:
    """Knows whether anything of it was sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def send(self, message: Message) -> None:
        self.begun = True
        await self._send(message)


def _is_leader(known: Knowledge, pool: str, leader: ServerRow) -> bool:
    found = known.leader_of(pool)
    return found is not None and found.id == leader.id


def _is_ours(scope: Scope) -> bool:
    """Whoever is not known, and would have to be, is refused here: what goes to a leader has been let in."""
    method = cast("dict[str, Any]", scope).get("method", WEBSOCKET)
    if is_anywhere(method, scope["path"]):
        return True
    return scope["state"].get(PRINCIPAL) is None and rule_of(method, scope["path"]) is not PUBLIC


def _caller(scope: Scope, name: str, pool: str) -> Caller:
    who = cast("Principal | None", scope["state"].get(PRINCIPAL))
    if who is LOCAL:
        return Caller(source=f"socket of {name}", local=True, pool=pool)
    client = scope["client"]
    source = client[0] if client else ""
    shown = scope["state"].get(CERTIFICATE)
    if who is not None and who.node is not None and shown is not None:
        from towline.identity.certificates import issued_at_ms

        return Caller(source=source, node=who.node, issued_at=issued_at_ms(shown), pool=pool)
    return Caller(source=source, pool=pool)


async def _while_it_leads(carrying: Any, leads: Callable[[], bool]) -> None:
    """Raises NotReached where the leader loses its place before it has answered: it may be frozen."""
    task = asyncio.ensure_future(carrying)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=LOOK_S)
            if not task.done() and not leads():
                task.cancel()
                break
        await asyncio.wait([task])
        if task.cancelled():
            raise NotReached
        task.result()
    finally:
        task.cancel()


def _path(scope: Scope) -> bytes:
    return cast("dict[str, Any]", scope).get("raw_path") or scope["path"].encode()
