"""How an agent opens its WebSocket: to the server of its own machine, or to one of its cluster."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import InvalidStatus

PATH = "/v1/agent/link"


class Dial(Protocol):
    """Opens a WebSocket to a server, with the options of ``websockets.connect``."""

    async def __call__(self, **options: Any) -> ClientConnection: ...


def dial_socket(path: str) -> Dial:
    """The server of this machine, on a Unix socket."""

    async def dial(**options: Any) -> ClientConnection:
        return await unix_connect(path, f"ws://localhost{PATH}", **options)

    return dial


def dial_cluster(url: str, context: Callable[[], ssl.SSLContext]) -> Dial:
    """A server of a cluster at ``https://HOST:PORT``, over TLS."""
    address = f"wss{url.removeprefix('https')}{PATH}"

    async def dial(**options: Any) -> ClientConnection:
        try:
            return await connect(address, ssl=context(), proxy=None, **options)
        except InvalidStatus as error:
            if error.response.status_code not in (401, 403):
                raise
            raise PermissionError(
                f"{url} does not know this node any more: make it one again with a new link, as in: "
                "tow agent --join 'tow://…'"
            ) from None

    return dial
