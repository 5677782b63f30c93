"""A client that knows several servers of a cluster: whom it asks next, and whom it does not trust."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from towline.client import Client
from towline.client.cluster.remote import Remote
from towline.client.exec import opened
from towline.errors import RequestError, Unavailable
from towline.identity.certificates import make_authority
from towline.identity.tls import server_context
from towline.server.access.authority import Authority
from towline.server.process.home import bind_port
from towline.server.process.http import HttpServer
from towline.wire.exec import Open


class Named(NamedTuple):
    url: str
    asked: list[str]


class World:
    """Servers of two clusters, the second of which nobody here trusts."""

    def __init__(self) -> None:
        now = datetime.datetime.now(datetime.UTC)
        self.own, self.strange = (Authority(make_authority(name, 1, now)) for name in ("own", "strange"))
        self.both = asyncio.Barrier(2)
        self._open: list[HttpServer] = []

    async def server(self, authority: Authority, answers: str = "ok") -> Named:
        """``answers``: ``ok``, ``busy``, or ``busy in pairs``: when a second request is there too."""
        asked: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            asked.append(scope["path"])
            if answers == "busy in pairs":
                await self.both.wait()
            status = 200 if answers == "ok" else 503
            begins = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
            if scope["type"] == "websocket":
                await receive()
            await send({"type": f"{begins}.start", "status": status, "headers": []})
            await send({"type": f"{begins}.body", "body": b'{"pools": []}', "more_body": False})

        listener = bind_port("127.0.0.1", 0)
        made = HttpServer(app)
        await made.start(listener, server_context(authority.server(["127.0.0.1"]), authority.certificate))
        self._open.append(made)
        return Named(f"https://127.0.0.1:{listener.getsockname()[1]}", asked)

    def remote(self, *servers: Named) -> Remote:
        urls = ",".join(server.url for server in servers)
        return Remote(url=urls, token="tow_x", authority=self.own.certificate.decode())

    async def close(self) -> None:
        for server in self._open:
            await server.close(0.1)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.close()


async def test_two_requests_that_fail_at_once_turn_to_the_next_server_and_not_back(world: World) -> None:
    busy, well = await world.server(world.own, "busy in pairs"), await world.server(world.own)
    async with Client(world.remote(busy, well), patience_s=30) as client:
        assert await asyncio.gather(client.pools(), client.pools()) == [[], []]
        await client.reconnect()
        assert await client.pools() == []
    assert (len(busy.asked), len(well.asked)) == (2, 3)


async def test_a_server_that_is_not_the_clusters_is_passed_over(world: World) -> None:
    strange, well = await world.server(world.strange), await world.server(world.own)
    async with Client(world.remote(strange, well), patience_s=30) as client:
        assert await client.pools() == []
    assert strange.asked == []


async def test_where_no_server_is_the_clusters_that_is_said_of_each_at_once(world: World) -> None:
    servers = [await world.server(world.strange) for _ in range(2)]
    async with Client(world.remote(*servers), patience_s=600) as client:
        with pytest.raises(RequestError) as refused:
            await client.pools()
    for server in servers:
        assert f"{server.url} is not the server that this context trusts" in str(refused.value)


async def test_where_the_others_do_not_answer_it_is_said_at_the_end(world: World) -> None:
    strange, busy = await world.server(world.strange), await world.server(world.own, "busy")
    async with Client(world.remote(strange, busy), patience_s=0.5) as client:
        with pytest.raises(Unavailable, match=rf"{strange.url} is not the server that this context trusts"):
            await client.pools()


async def test_a_command_is_not_refused_for_good_because_one_server_is_strange(world: World) -> None:
    strange, busy = await world.server(world.strange), await world.server(world.own, "busy")
    wanted = Open(argv=("true",))
    with pytest.raises(Unavailable, match=r"cannot do this now"):
        async with opened(world.remote(busy, strange), "/exec", wanted):
            pass
    with pytest.raises(RequestError, match=r"is not the server that this context trusts"):
        async with opened(world.remote(strange), "/exec", wanted):
            pass
