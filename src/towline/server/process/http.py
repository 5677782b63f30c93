"""Serving an ASGI application on a Unix socket or over TLS, with uvicorn's protocols.

uvicorn's own server is left out: it polls ten times a second, takes over the signals, and cannot
be given a Unix socket that is bound already.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

KEEP_ALIVE_S = 75
HANDSHAKE_S = 10
FIRST_REQUEST_S = 20
CERTIFICATE = "towline_certificate"
"""Where the state of a request has the certificate, DER, that its peer has shown over TLS."""
MAX_FRAME_BYTES = 64 * 1024**2


class _Connection(HttpToolsProtocol):
    """Puts the certificate that a peer has shown, DER, into the state of its requests."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        shown = None if tls is None else tls.getpeercert(True)
        if shown is not None:
            self.app_state[CERTIFICATE] = shown
        if tls is not None:
            self.loop.call_later(FIRST_REQUEST_S, self._cut_if_silent)

    def _cut_if_silent(self) -> None:
        """Whoever has connected and asked nothing since holds a connection for no reason."""
        if self.cycle is None and self in self.connections:
            self.transport.close()


class HttpServer:
    """Serves until ``close``."""

    def __init__(self, app: Any) -> None:
        self._config = Config(
            app,
            interface="asgi3",
            http="httptools",
            ws="websockets-sansio",
            ws_max_size=MAX_FRAME_BYTES,
            ws_ping_interval=None,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._config.load()
        self._state = ServerState()
        self._server: asyncio.AbstractServer | None = None

    async def start(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Serve on a listening socket, a Unix one where there is no ``tls``."""
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            return _Connection(config=self._config, server_state=self._state, app_state={}, _loop=loop)

        if tls is None:
            self._server = await loop.create_unix_server(protocol, sock=listener)
        else:
            self._server = await loop.create_server(
                protocol, sock=listener, ssl=tls, ssl_handshake_timeout=HANDSHAKE_S
            )

    @property
    def connections(self) -> int:
        """Open connections, those of agents among them."""
        return len(self._state.connections)

    async def stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def close(self, grace_s: float) -> None:
        """Let requests that are being answered end within ``grace_s``, then cut all connections."""
        await self.stop_listening()
        for connection in list(self._state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while self._state.tasks:
                    await asyncio.wait(set(self._state.tasks))
        for task in set(self._state.tasks):
            task.cancel()
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=grace_s)
