"""Connections over TLS: who asks nothing, or does not go on, is let go; and there are only so many."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from towline.identity import certificates as pki
from towline.identity.certificates import Pair
from towline.identity.tls import client_context, server_context
from towline.server.process import http
from towline.server.process.home import bind_port
from towline.server.process.http import HttpServer

NOW = datetime.datetime.now(datetime.UTC)


MOST = 8
HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"


class Address(NamedTuple):
    port: int
    context: ssl.SSLContext
    server: HttpServer

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.context, server_hostname="localhost"
        )

    async def asked(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection on which a request has been answered."""
        reader, writer = await self.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"ok")
        return reader, writer


async def answer_ok(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
async def address() -> AsyncIterator[Address]:
    authority = pki.make_authority("test", 1, NOW)
    key = pki.make_key()
    pair = Pair(key=key, certificate=pki.sign_server(authority, key, ["localhost"], 1, NOW))
    listener = bind_port("127.0.0.1", 0)
    server = HttpServer(answer_ok, max_connections=MOST)
    await server.start(listener, server_context(pair, authority.certificate))
    yield Address(listener.getsockname()[1], client_context(authority.certificate), server)
    await server.close(0.1)


async def test_a_connection_that_asks_nothing_is_closed_and_others_stay(
    monkeypatch: pytest.MonkeyPatch, address: Address
) -> None:
    monkeypatch.setattr(http, "FIRST_REQUEST_S", 1)
    silent, asks = await address.connect(), await address.asked()
    assert await silent[0].read() == b""  # closed by the server
    asks[1].write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await asks[0].readline()).startswith(b"HTTP/1.1 200")
    for _, writer in (silent, asks):
        writer.close()


@pytest.mark.parametrize(
    ("shortened", "sent"),
    [
        ({"HEADERS_S": 0.5}, b"GET / HTTP/1.1\r\nHost: loc"),
        ({"HEADERS_S": 0.5}, b"G"),
        ({"BODY_LOOK_S": 0.5}, HEAD + b"\r\nabc"),
        ({"KEEP_ALIVE_S": 1}, b"\r\n"),
    ],
)
async def test_who_sends_half_a_request_is_let_go_also_after_a_whole_one(
    monkeypatch: pytest.MonkeyPatch, shortened: dict[str, float], sent: bytes, address: Address
) -> None:
    for name, value in shortened.items():
        monkeypatch.setattr(http, name, value)
    monkeypatch.setattr(address.server._config, "timeout_keep_alive", http.KEEP_ALIVE_S)
    reader, writer = await address.asked()
    writer.write(sent)
    async with asyncio.timeout(30):  # less than a connection is kept open
        assert await reader.read() == b""
    writer.close()


async def test_a_body_that_comes_slowly_and_goes_on_is_taken(
    monkeypatch: pytest.MonkeyPatch, address: Address
) -> None:
    monkeypatch.setattr(http, "BODY_LOOK_S", 0.05)
    monkeypatch.setattr(http, "BODY_LEAST_BYTES", 0)
    reader, writer = await address.asked()
    writer.write(HEAD + b"\r\n")
    for _ in range(10):
        writer.write(b"x" * 10_000)
        await asyncio.sleep(0.05)  # several looks
    await reader.readuntil(b"ok")
    writer.close()


async def test_one_address_gets_half_of_the_connections_and_they_are_given_back(address: Address) -> None:
    held = [await address.asked() for _ in range(MOST // 2)]
    reader, writer = await address.connect()
    assert (await reader.readline()).startswith(b"HTTP/1.1 503")
    writer.close()
    held[0][1].close()
    async with asyncio.timeout(30):
        while len(address.server._state.places) == MOST // 2:  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.01)
    held.append(await address.asked())
    for _, writer in held:
        writer.close()
