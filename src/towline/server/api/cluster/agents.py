"""``/v1/agent/link``: the WebSocket of agents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from litestar import WebSocket
from litestar.exceptions import WebSocketDisconnect
from litestar.handlers import WebsocketRouteHandler

from towline.server.access.guard import principal_of
from towline.server.api.cluster.enrolment import access_of
from towline.server.api.service import Service, service_of
from towline.server.process.http import CERTIFICATE
from towline.server.seats.seat import Seat

AnyWebSocket = WebSocket[Any, Any, Any]


class AgentSocket:
    """The link's side of a WebSocket. A peer that has gone is told as ConnectionError."""

    def __init__(self, socket: AnyWebSocket) -> None:
        self._socket = socket

    async def send(self, frame: bytes) -> None:
        try:
            await self._socket.send_data(frame, mode="binary")
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ConnectionError(str(error)) from None

    async def close(self) -> None:
        try:
            await self._socket.close()
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ConnectionError(str(error)) from None

    async def frames(self) -> AsyncIterator[bytes]:
        """Frames until the connection ends."""
        while True:
            try:
                yield await self._socket.receive_data(mode="binary")
            except WebSocketDisconnect:
                return


async def _link(socket: AnyWebSocket) -> None:
    await socket.accept()
    agent = AgentSocket(socket)
    who = principal_of(socket)
    node = None if who is None else who.node
    service = service_of(socket)
    seat = _seat_of(service, node)
    frames = agent.frames()
    if node is not None:
        frames = _of_a_member(socket, node, lambda: _seat_of(service, node) is seat, frames)
    await seat.gateway.serve(agent, frames, node)


def _seat_of(service: Service, node: str | None) -> Seat:
    """Of the pool that a node has enrolled for; this machine's own node is of the home's."""
    if node is None or service.access is None:
        return service.seats.home
    return service.seats.add(service.access.enrolments.pool_of(node) or service.seats.home.pool)


async def _of_a_member(
    socket: AnyWebSocket, node: str, is_of_the_pool: Callable[[], bool], frames: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """The frames until the node is forgotten, which may be before its first one; or until it is heard that it
    has enrolled for another pool, where another server has seen to both."""
    from towline.identity.certificates import issued_at_ms

    enrolments = access_of(service_of(socket)).enrolments
    issued_at = issued_at_ms(socket.scope["state"][CERTIFICATE])
    async for frame in frames:
        if not enrolments.admits(node, issued_at) or not is_of_the_pool():
            return
        yield frame


agent_link = WebsocketRouteHandler("/v1/agent/link")(_link)
