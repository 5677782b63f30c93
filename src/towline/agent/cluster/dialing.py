"""How an agent opens its WebSocket: to the server of its own machine, or to one of its cluster."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import InvalidStatus

from towline.agent.cluster.servers import Servers
from towline.wire.sockets import NOT_OPENED

PATH = "/v1/agent/link"


class Dial(Protocol):
    """Opens a WebSocket to a server, with the options of ``websockets.connect``."""

    async def __call__(self, **options: Any) -> ClientConnection: ...


def url_of(connection: ClientConnection) -> str:
    """Which server of a cluster an open connection leads to."""
    asked = connection.request
    return "" if asked is None else f"https://{asked.headers['Host']}"


def dial_socket(path: str) -> Dial:
    """The server of this machine, on a Unix socket."""

    async def dial(**options: Any) -> ClientConnection:
        return await unix_connect(path, f"ws://localhost{PATH}", **options)

    return dial


def dial_cluster(servers: Servers, context: Callable[[], ssl.SSLContext]) -> Dial:
    """The server of a cluster whose turn it is, over TLS."""

    async def dial(**options: Any) -> ClientConnection:
        url = servers.next()
        address = f"wss{url.removeprefix('https')}{PATH}"
        try:
            return await connect(address, ssl=context(), proxy=None, **options)
        except NOT_OPENED as error:
            servers.failed(url)
            if not isinstance(error, InvalidStatus):
                raise
            if error.response.status_code not in (401, 403):
                raise
            raise PermissionError(
                f"{url} does not know this node any more: make it one again with a new link, as in: "
                "tow agent --join 'tow://…'"
            ) from None

    return dial
