"""One message to a webhook's receiver: signed, sent to an address that was looked at, redirects not followed.

The headers are those of Standard Webhooks: ``webhook-id`` (the same for every try), ``webhook-timestamp``
(unix seconds) and ``webhook-signature`` (``v1,`` and the base64 of an HMAC-SHA256 over id, timestamp and
body, with dots between).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import socket
import ssl
from collections.abc import Iterable
from functools import cache
from typing import Any

import httpcore2

from towline.server.webhooks.targets import NotTaken, Refused, Targets

TIMEOUT_S = 10.0
_HEADERS = [(b"content-type", b"application/json"), (b"user-agent", b"towline")]


def signature(secret: bytes, id: str, at_s: int, body: bytes) -> str:
    signed = f"{id}.{at_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


async def send(url: str, id: str, at_s: int, body: bytes, secret: bytes, targets: Targets) -> None:
    """Raises Refused, NotTaken."""
    refusal = targets.refusal_of_url(url)
    if refusal is not None:
        raise Refused(refusal)
    headers = [
        *_HEADERS,
        (b"webhook-id", id.encode()),
        (b"webhook-timestamp", str(at_s).encode()),
        (b"webhook-signature", signature(secret, id, at_s, body).encode()),
    ]
    try:
        async with asyncio.timeout(TIMEOUT_S):
            status = await _post(url, headers, body, targets)
    except TimeoutError:
        raise NotTaken(f"no answer within {TIMEOUT_S:.0f} s") from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
        raise NotTaken(f"{type(error).__name__}: {error}"[:300]) from None
    if not 200 <= status < 300:
        raise NotTaken(f"it answers with status {status}")


async def _post(url: str, headers: list[tuple[bytes, bytes]], body: bytes, targets: Targets) -> int:
    """The status. A pool of its own for each message, since connections are kept by name, not by address."""
    pool = httpcore2.AsyncConnectionPool(
        ssl_context=_context() if url.startswith("https:") else None, network_backend=_Looking(targets)
    )
    async with pool, pool.stream("POST", url, headers=headers, content=body) as answer:
        return int(answer.status)  # what else it says is not read


@cache
def _context() -> ssl.SSLContext:
    """The machine's authorities, which take a while to read."""
    return ssl.create_default_context()


class _Looking(httpcore2.AnyIOBackend):
    """Resolves a name itself and connects to an address that is allowed: between the look and the
    connection nobody is asked again."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface has it
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        error: Exception = Refused(f"{host} has no address")
        for address in await self._addresses(host, port):
            try:
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore2.NetworkError as failed:
                error = failed
        raise error

    async def _addresses(self, host: str, port: int) -> list[str]:
        """Raises Refused where one of them is not allowed, NotTaken where there is no such name."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise NotTaken(f"{host} has no address: {error.strerror or error}") from None
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        for text in addresses:
            refusal = self._targets.refusal_of_address(host, ipaddress.ip_address(text.partition("%")[0]))
            if refusal is not None:
                raise Refused(refusal)
        return addresses
