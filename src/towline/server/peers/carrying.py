"""Requests on their way to another server of the cluster: over TLS, as a server, without holding back what
has arrived of them or of their answers."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any, cast

import httpx2
from litestar.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from towline.core.leadership import ServerRow
from towline.server.peers.anywhere import is_lasting
from towline.server.peers.callers import CONNECTIONS, STREAMS, SUBJECT
from towline.server.peers.passing import HOP_BY_HOP, Full, Headers, NotReached

if TYPE_CHECKING:
    from towline.server.access.authority import Authority

CONNECT_S = 2.0
RENEW_S = 24 * 3600.0
"""A certificate of one's own is made anew after so long."""
_REFUSED = 1008
_GONE = 1012
_NOT_SENT = (
    b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions", b"sec-websocket-protocol",
)  # fmt: skip


class Carrying:
    """The ways of server ``me`` to all others."""

    def __init__(self, authority: Authority, me: str) -> None:
        self._authority = authority
        self._me = me
        self._pools: dict[tuple[str, bool], httpx2.AsyncClient] = {}
        """By address, one for what is answered soon and one for what lasts: that takes no place of others."""
        self._lasting: Counter[str] = Counter()
        """How many requests and WebSockets there are that last, by address."""
        self._tls: ssl.SSLContext | None = None
        self._made_s = 0.0

    def _context(self) -> ssl.SSLContext:
        from towline.identity.tls import client_context

        if self._tls is None or time.monotonic() - self._made_s > RENEW_S:
            pair = self._authority.peer(f"{SUBJECT}{self._me}")
            self._tls = client_context(self._authority.certificate, pair)
            self._made_s = time.monotonic()
            self._pools.clear()  # what they carry goes on; they are closed with their last connection
        return self._tls

    def _pool(self, to: ServerRow, *, lasting: bool) -> httpx2.AsyncClient:
        context = self._context()
        key = to.address, lasting
        if key not in self._pools:
            limits = httpx2.Limits(
                max_connections=STREAMS if lasting else CONNECTIONS, max_keepalive_connections=20
            )
            self._pools[key] = httpx2.AsyncClient(
                transport=httpx2.AsyncHTTPTransport(verify=context, limits=limits),
                timeout=httpx2.Timeout(None, connect=CONNECT_S, pool=CONNECT_S),
                trust_env=False,
            )
        return self._pools[key]

    @contextlib.contextmanager
    def _place(self, to: ServerRow) -> Generator[None]:
        """Among what lasts. Raises Full."""
        if self._lasting[to.address] >= STREAMS:
            raise Full(
                f"This server passes on {STREAMS} streams to the leader and has no place for another one: "
                f"repeat the request, or ask the leader at {to.address} itself."
            )
        self._lasting[to.address] += 1
        try:
            yield
        finally:
            self._lasting[to.address] -= 1

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()

    # --- requests -----------------------------------------------------------------------------------
    async def http(self, to: ServerRow, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        method = cast("dict[str, Any]", scope)["method"]
        if is_lasting(method, scope["path"]):
            with self._place(to):
                await self._http(self._pool(to, lasting=True), to, scope, headers, receive, send)
        else:
            await self._http(self._pool(to, lasting=False), to, scope, headers, receive, send)

    async def _http(
        self,
        pool: httpx2.AsyncClient,
        to: ServerRow,
        scope: Scope,
        headers: Headers,
        receive: Receive,
        send: Send,
    ) -> None:
        names = {key for key, _ in scope["headers"]}
        has_body = b"content-length" in names or b"transfer-encoding" in names
        body = _Body(receive, ended=not has_body)
        method = cast("dict[str, Any]", scope)["method"]
        url = f"https://{to.address}{_target(scope)}"
        request = pool.build_request(
            method, url, headers=cast("Any", headers), content=body.parts() if has_body else None
        )
        left = asyncio.ensure_future(body.left())
        passed = asyncio.ensure_future(_pass(pool, request, send))
        try:
            await asyncio.wait([passed, left], return_when=asyncio.FIRST_COMPLETED)
            if passed.done():
                passed.result()
        finally:
            # Whoever has gone waits for no answer, and what is on its way for him holds no connection.
            for task in (passed, left):
                task.cancel()
            await asyncio.gather(passed, left, return_exceptions=True)

    # --- WebSockets ---------------------------------------------------------------------------------
    async def websocket(
        self, to: ServerRow, scope: Scope, headers: Headers, receive: Receive, send: Send
    ) -> None:
        with self._place(to):
            await self._websocket(to, scope, headers, receive, send)

    async def _websocket(
        self, to: ServerRow, scope: Scope, headers: Headers, receive: Receive, send: Send
    ) -> None:
        own = [(key.decode(), value.decode("latin-1")) for key, value in headers if key not in _NOT_SENT]
        try:
            connection = await connect(
                f"wss://{to.address}{_target(scope)}",
                ssl=self._context(),
                additional_headers=[one for one in own if one[0] != "host"],
                compression=None,
                max_size=None,
                ping_interval=None,
                open_timeout=CONNECT_S,
                close_timeout=1,
                proxy=None,
                user_agent_header=None,
            )
        except InvalidStatus as error:
            if error.response.status_code == 503:
                raise NotReached("not now") from None
            await send({"type": "websocket.close", "code": _REFUSED, "reason": ""})
            return
        except (OSError, TimeoutError, InvalidHandshake, InvalidMessage, EOFError) as error:
            raise NotReached(str(error)) from None
        async with connection:
            await send(cast("Any", {"type": "websocket.accept", "subprotocol": None, "headers": []}))
            tasks = [
                asyncio.ensure_future(_up(receive, connection)),
                asyncio.ensure_future(_down(connection, send)),
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


def _target(scope: Scope) -> str:
    whole = cast("dict[str, Any]", scope)
    path = (whole.get("raw_path") or scope["path"].encode()).decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


class _Body:
    """What the caller sends, as it arrives; and whether it is there still."""

    def __init__(self, receive: Receive, *, ended: bool) -> None:
        self._receive = receive
        self._ended = asyncio.Event()
        if ended:
            self._ended.set()

    async def parts(self) -> AsyncIterator[bytes]:
        try:
            while True:
                message = cast("dict[str, Any]", await self._receive())
                if message["type"] == "http.disconnect":
                    raise httpx2.ReadError("the caller has gone")
                if message.get("body"):
                    yield message["body"]
                if not message.get("more_body", False):
                    return
        finally:
            self._ended.set()

    async def left(self) -> None:
        """Return when the caller has gone away."""
        await self._ended.wait()
        while (await self._receive())["type"] != "http.disconnect":
            continue


async def _pass(pool: httpx2.AsyncClient, request: httpx2.Request, send: Send) -> None:
    try:
        answer = await pool.send(request, stream=True)
    except (httpx2.TransportError, OSError) as error:
        raise NotReached(str(error)) from None
    async with contextlib.aclosing(answer):
        await _relay(answer, send)


async def _relay(answer: httpx2.Response, send: Send) -> None:
    headers = [(key.lower(), value) for key, value in answer.headers.raw if key.lower() not in HOP_BY_HOP]
    await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
    try:
        async for part in answer.aiter_raw():
            await send({"type": "http.response.body", "body": part, "more_body": True})
    except (httpx2.TransportError, OSError) as error:
        raise NotReached(str(error)) from None
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _up(receive: Receive, connection: ClientConnection) -> None:
    """From the caller to the leader, until the caller closes."""
    while True:
        message = cast("dict[str, Any]", await receive())
        if message["type"] != "websocket.receive":
            return
        data = message.get("bytes")
        with contextlib.suppress(ConnectionClosed):
            await connection.send(message["text"] if data is None else data)


async def _down(connection: ClientConnection, send: Send) -> None:
    """From the leader to the caller; its close code too."""
    try:
        while True:
            data = await connection.recv()
            key = "text" if isinstance(data, str) else "bytes"
            await send(cast("Any", {"type": "websocket.send", key: data}))
    except ConnectionClosed as closed:
        code = closed.rcvd.code if closed.rcvd is not None else _GONE
        reason = closed.rcvd.reason if closed.rcvd is not None else "the leader is gone"
        await send({"type": "websocket.close", "code": code, "reason": reason})
