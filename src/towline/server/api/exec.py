"""A command inside a running attempt: a WebSocket that is passed on to the attempt's node and back.

What is passed on is bounded by the windows of ``wire.exec``, which both sides are held to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from litestar import WebSocket
from litestar.handlers import WebsocketRouteHandler
from litestar.params import FromPath

from towline.core.commands import attempt_id
from towline.core.rows import TaskRow
from towline.errors import NotFound, RequestError, TowlineError
from towline.model.states import AttemptState, ElementState
from towline.model.views import ElementView
from towline.server.api.cluster.agents import AgentSocket
from towline.server.api.logs import find_attempt
from towline.server.api.service import Service, service_of
from towline.server.link import Further, Link
from towline.wire.exec import (
    Allowance,
    Credit,
    Data,
    Exit,
    FromCommand,
    Open,
    Refused,
    decode_from_client,
    encode,
)

AnyWebSocket = WebSocket[Any, Any, Any]
OPEN_TIMEOUT_S = 30.0
_TOGETHER = 8
"""Messages of one frame to a client at most."""


async def _exec(socket: AnyWebSocket, job: FromPath[str], task: FromPath[str], index: FromPath[int]) -> None:
    await socket.accept()
    client = AgentSocket(socket)
    frames = client.frames()
    try:
        try:
            relay = await _open(service_of(socket), job, task, index, await _first(frames))
        except TowlineError as error:
            kind = "request" if isinstance(error, RequestError) else "unavailable"
            await client.send(encode([Refused(kind=kind, message=str(error))]))
        else:
            await relay.run(client, frames)
        await client.close()
    except ConnectionError:
        return  # the client has gone


exec_route = WebsocketRouteHandler("/v1/jobs/{job:str}/tasks/{task:str}/elements/{index:int}/exec")(_exec)


async def _first(frames: AsyncIterator[bytes]) -> Open:
    """Raises RequestError, ConnectionError."""
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            async for frame in frames:
                messages = decode_from_client(frame)
                if len(messages) == 1 and isinstance(messages[0], Open):
                    return messages[0]
                raise RequestError("the first message has to be Open, alone in its frame")
    except msgspec.DecodeError as error:
        raise RequestError(f"the first message is not Open: {error}") from None
    except TimeoutError:
        raise RequestError(f"nothing was said for {OPEN_TIMEOUT_S:.0f} s") from None
    raise ConnectionError


async def _open(service: Service, job: str, task: str, index: int, wanted: Open) -> Relay:
    row = await service.find(job)
    task_row = await service.facts.task_row(row, task)
    if not task_row.first <= index <= task_row.last:
        raise NotFound(
            f"Task {task!r} has no element {index}: its indexes are {task_row.first} to {task_row.last}."
        )
    page = await service.facts.page(row, task, str(index - 1), 1, None)
    return await _open_element(service, task_row, page.elements[0], wanted)


async def _open_element(service: Service, task: TaskRow, element: ElementView, wanted: Open) -> Relay:
    attempt = await find_attempt(service, task, element.index, None)
    if attempt is None or element.state != ElementState.ACTIVE or attempt.state != AttemptState.RUNNING:
        state = element.state if attempt is None else f"{element.state} {attempt.state}"
        raise RequestError(f"Element {task.name}.{element.index} does not run: {_how(element, state)}.")
    name = attempt_id((attempt.job, attempt.task, attempt.index, attempt.number))
    return Relay(*service.gateway.exec_open(attempt.node, name, wanted))


def _how(element: ElementView, state: str) -> str:
    match element.state:
        case ElementState.WAITING:
            return "it is waiting for what it needs"
        case ElementState.QUEUED:
            return "it is queued (tow why says for what)"
        case ElementState.ACTIVE if state.endswith((AttemptState.ASSIGNED, AttemptState.PREPARING)):
            return "it is preparing (its image and inputs are made ready): repeat this when it runs"
        case ElementState.ACTIVE:
            return "its attempt has just ended"
        case _:
            return f"it has ended: {element.state}"


class Relay:
    """One command between a client and a node's link."""

    def __init__(self, link: Link, name: int, said: Further) -> None:
        self._link = link
        self._name = name
        self._said = said
        self._to_node = Allowance()
        self._to_client = Allowance()

    async def run(self, client: AgentSocket, frames: AsyncIterator[bytes]) -> None:
        """Until the command has ended, its node has gone, or the client has. Raises ConnectionError."""
        there = asyncio.create_task(self._pass_on(frames))
        back = asyncio.create_task(self._pass_back(client))
        try:
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
            if there.done():
                there.result()
            if back.done():
                back.result()
        except (msgspec.DecodeError, ValueError) as error:
            refused = Refused(kind="request", message=f"The client broke the protocol: {error}.")
            await client.send(encode([refused]))
        finally:
            self._link.exec_close(self._name)
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)

    async def _pass_on(self, frames: AsyncIterator[bytes]) -> None:
        async for frame in frames:
            for message in decode_from_client(frame):
                if isinstance(message, Open):
                    raise ValueError("Open comes once")
                if isinstance(message, Data):
                    self._to_node.spend(len(message.data))
                elif isinstance(message, Credit):
                    self._to_client.grant(message.count)
                self._link.exec_say(self._name, message)

    async def _pass_back(self, client: AgentSocket) -> None:
        while True:
            messages = [await self._next()]
            while len(messages) < _TOGETHER and not self._said.empty():
                messages.append(await self._next())
            for message in messages:
                if isinstance(message, Data):
                    self._to_client.spend(len(message.data))
                elif isinstance(message, Credit):
                    self._to_node.grant(message.count)
            await client.send(encode(messages))
            if isinstance(messages[-1], Exit | Refused):
                return

    async def _next(self) -> FromCommand:
        message = await self._said.get()
        if message is None:
            lost = f"The connection to node {self._link.name} is lost, and the command was killed there."
            return Refused(kind="unavailable", message=lost)
        return message
