"""Connections over TLS: who asks nothing is let go."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import pytest

from towline.identity import certificates as pki
from towline.identity.certificates import Pair
from towline.identity.tls import client_context, server_context
from towline.server.process import http
from towline.server.process.home import bind_port
from towline.server.process.http import HttpServer

NOW = datetime.datetime.now(datetime.UTC)


async def answer_ok(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def test_a_connection_that_asks_nothing_is_closed_and_others_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "FIRST_REQUEST_S", 0.2)
    authority = pki.make_authority("test", 1, NOW)
    key = pki.make_key()
    pair = Pair(key=key, certificate=pki.sign_server(authority, key, ["localhost"], 1, NOW))
    listener = bind_port("127.0.0.1", 0)
    server = HttpServer(answer_ok)
    await server.start(listener, server_context(pair, authority.certificate))
    port = listener.getsockname()[1]
    context = client_context(authority.certificate)
    silent, asks = [
        await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        for _ in range(2)
    ]
    asks[1].write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await asks[0].readline()).startswith(b"HTTP/1.1 200")
    assert await silent[0].read() == b""  # closed by the server
    asks[1].write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await asks[0].readuntil(b"ok")
    assert (await asks[0].readline()).startswith(b"HTTP/1.1 200")
    for _, writer in (silent, asks):
        writer.close()
    await server.close(0.1)
