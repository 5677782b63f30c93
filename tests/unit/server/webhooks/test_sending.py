"""A message on its way: its signature, the address that it goes to, and answers that are no success."""

from __future__ import annotations

import asyncio
import datetime
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from towline.identity import certificates as pki
from towline.identity.tls import client_context, server_context
from towline.server.webhooks import sending
from towline.server.webhooks.delivering import LONGEST_WAIT_S, wait_s
from towline.server.webhooks.sending import send, signature
from towline.server.webhooks.targets import NotTaken, Refused, Targets

LOOPBACK = Targets(["127.0.0.0/8", "hook.test"])


class Receiver:
    """Answers every request with ``status``; keeps what was sent."""

    def __init__(self) -> None:
        self.status = "200 OK"
        self.silent = False
        self.got: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:  # it has left already
            writer.close()
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        self.got.append(head + await reader.readexactly(length))
        if self.silent:
            await reader.read()  # until the caller leaves
        else:
            headers = "location: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close"
            writer.write(f"HTTP/1.1 {self.status}\r\n{headers}\r\n\r\n".encode())
        writer.close()


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, int]]:
    made = Receiver()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    yield made, server.sockets[0].getsockname()[1]
    server.close()


def resolve(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Names have these addresses, one answer after the other; returns the names that are asked for."""
    asked: list[str] = []
    loop, left = asyncio.get_running_loop(), list(answers)

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in left.pop(0)]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    return asked


def test_the_signature_is_that_of_standard_webhooks() -> None:
    # Made with `printf 'msg_1.1700000000.{"a":1}' | openssl dgst -sha256 -hmac key -binary | base64`.
    assert (
        signature(b"key", "msg_1", 1_700_000_000, b'{"a":1}')
        == "v1,KSgv0SSgWzG5LPnm9tfWJRfBlWqAqHz+OlObgspQi/g="
    )


async def test_a_name_is_asked_for_once_and_what_it_stood_for_is_connected_to(
    receiver: tuple[Receiver, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, port = receiver
    asked = resolve(monkeypatch, ["127.0.0.1"], ["10.0.0.1"])
    await send(f"http://hook.test:{port}/x", "id", 1, b"{}", b"key", LOOPBACK)
    assert asked == ["hook.test"]
    assert f"Host: hook.test:{port}".encode() in made.got[0]
    assert b"webhook-id: id" in made.got[0]


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["169.254.169.254"], ["8.8.8.8", "10.0.0.1"], ["::1"]])
async def test_a_name_that_leads_inside_is_refused_and_nobody_is_connected_to(
    receiver: tuple[Receiver, int], monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    made, port = receiver
    resolve(monkeypatch, addresses)
    with pytest.raises(Refused, match="webhook_targets"):
        await send(f"https://hook.test:{port}/x", "id", 1, b"{}", b"key", Targets())
    assert made.got == []


@pytest.mark.parametrize("status", ["302 Found", "307 Temporary Redirect", "404 Not Found", "500 Oh"])
async def test_only_2xx_is_success_and_no_redirect_is_followed(
    receiver: tuple[Receiver, int], status: str
) -> None:
    made, port = receiver
    made.status = status
    with pytest.raises(NotTaken, match=f"answers with status {status[:3]}"):
        await send(f"http://127.0.0.1:{port}/x", "id", 1, b"{}", b"key", LOOPBACK)
    assert len(made.got) == 1


async def test_who_does_not_answer_is_left(
    receiver: tuple[Receiver, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, port = receiver
    made.silent = True
    monkeypatch.setattr(sending, "TIMEOUT_S", 0.5)
    with pytest.raises(NotTaken, match="no answer"):
        await send(f"http://127.0.0.1:{port}/x", "id", 1, b"{}", b"key", LOOPBACK)


async def test_where_nobody_listens_nothing_is_taken() -> None:
    with pytest.raises(NotTaken, match="ConnectError"):
        await send("http://127.0.0.1:1/x", "id", 1, b"{}", b"key", LOOPBACK)


def test_waits_double_up_to_the_longest_and_are_spread_over_all_of_it() -> None:
    assert [wait_s(attempts, 1) for attempts in (1, 2, 3)] == [5, 10, 20]
    assert wait_s(15, 1) == LONGEST_WAIT_S
    assert wait_s(3, 0) == 0
    assert wait_s(3, 0.5) == 10


@pytest.mark.parametrize(("name", "taken"), [("hook.test", True), ("other.test", False)])
async def test_over_tls_the_certificate_has_to_be_the_names(
    monkeypatch: pytest.MonkeyPatch, name: str, taken: bool
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    authority, key = pki.make_authority("test", 1, now), pki.make_key()
    pair = pki.Pair(key=key, certificate=pki.sign_server(authority, key, [name], 1, now))
    made = Receiver()
    context = server_context(pair, authority.certificate)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setattr(sending, "_context", lambda: client_context(authority.certificate))
    resolve(monkeypatch, ["127.0.0.1"])
    sent = send(f"https://hook.test:{port}/x", "id", 1, b"{}", b"key", LOOPBACK)
    if taken:
        await sent
    else:
        with pytest.raises(NotTaken, match="CERTIFICATE_VERIFY_FAILED"):
            await sent
    assert len(made.got) == taken
    server.close()
