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
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from towline.server.process.home import BACKLOG
from towline.server.process.places import Places

KEEP_ALIVE_S = 75
HANDSHAKE_S = 20
"""When all nodes of a large cluster come at once, the last ones wait for the others' handshakes."""
FIRST_REQUEST_S = 20
HEADERS_S = 20
"""The head of a request may take so long over TLS."""
BODY_LOOK_S = 20
BODY_LEAST_BYTES = 20 * 1024
"""What has to arrive of a body within each ``BODY_LOOK_S``."""
MAX_CONNECTIONS = 1000
CERTIFICATE = "towline_certificate"
"""Where the state of a request has the certificate, DER, that its peer has shown over TLS."""
MAX_FRAME_BYTES = 64 * 1024**2
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-type: text/plain\r\ncontent-length: 35\r\n\r\nToo many connections: repeat later.\n"
)


class _State(ServerState):
    """What the connections of one server share."""

    def __init__(self, places: Places) -> None:
        super().__init__()
        self.places = places


class _Connection(HttpToolsProtocol):
    """Puts the certificate that a peer has shown, DER, into the state of its requests. Over TLS, where
    anybody may come, it takes nobody beyond the places that there are, and lets go who does not go on."""

    server_state: _State
    _tls = False
    _body_bytes: int | None = None
    """Of the body that arrives since the last look; None: the head does."""
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is None:
            return
        self._tls = True
        shown = tls.getpeercert(True)
        if not self.server_state.places.take(transport, self.client[0] if self.client else "", shown):
            transport.write(_FULL)
            transport.close()
            return
        if shown is not None:
            self.app_state[CERTIFICATE] = shown
        self.loop.call_later(FIRST_REQUEST_S, self._cut_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self.server_state.places.leave(self.transport)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._tls and self._timer is None and self.cycle is not None and self.cycle.response_complete:
            self._await_next()

    def _await_next(self) -> None:
        """Empty lines between requests are no request: they do not keep the connection."""
        if self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def handle_websocket_upgrade(self) -> None:
        self._stop_timer()
        super().handle_websocket_upgrade()

    # --- a request that arrives -------------------------------------------------------------------
    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._tls:
            self._body_bytes = None
            self._start_timer(HEADERS_S)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._tls:
            self._body_bytes = 0
            self._start_timer(BODY_LOOK_S)

    def on_body(self, body: bytes) -> None:
        if self._body_bytes is not None:
            self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._stop_timer()
        super().on_message_complete()

    def _start_timer(self, delay_s: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(delay_s, self._look)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if not self.flow.read_paused and (self._body_bytes or 0) < BODY_LEAST_BYTES:
            self.transport.close()
            return
        self._body_bytes = 0
        self._start_timer(BODY_LOOK_S)

    def _cut_if_silent(self) -> None:
        """Whoever has connected and asked nothing since holds a connection for no reason."""
        if self.cycle is None and self in self.connections:
            self.transport.close()


class _WebSocket(WebSocketsSansIOProtocol):
    """Gives its place back at its end."""

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], **more: Any
    ) -> None:
        super().__init__(config, server_state, app_state, **more)
        self._places = server_state.places if isinstance(server_state, _State) else None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._places is not None:
            self._places.leave(self.transport)
        super().connection_lost(exc)


class HttpServer:
    """Serves until ``close``."""

    def __init__(self, app: Any, max_connections: int = MAX_CONNECTIONS) -> None:
        self._config = Config(
            app,
            interface="asgi3",
            http="httptools",
            ws=_WebSocket,
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
        self._state = _State(Places(max_connections))
        self._server: asyncio.AbstractServer | None = None

    async def start(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Serve on a listening socket, a Unix one where there is no ``tls``."""
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            return _Connection(config=self._config, server_state=self._state, app_state={}, _loop=loop)

        if tls is None:
            self._server = await loop.create_unix_server(protocol, sock=listener, backlog=BACKLOG)
        else:
            self._server = await loop.create_server(
                protocol, sock=listener, backlog=BACKLOG, ssl=tls, ssl_handshake_timeout=HANDSHAKE_S
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
