"""Requests on their way to the leader: what lasts takes no place of what does not, and who has gone no place
at all."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from litestar.types import Message

from towline.core.leadership import ServerRow
from towline.identity.certificates import make_authority
from towline.identity.tls import server_context
from towline.server.access.authority import Authority
from towline.server.peers import carrying as layer
from towline.server.peers.anywhere import LASTING, is_anywhere, is_lasting
from towline.server.peers.callers import CONNECTIONS, PER_SERVER, STREAMS, is_server
from towline.server.peers.carrying import Carrying
from towline.server.peers.passing import Full
from towline.server.process.home import bind_port
from towline.server.process.http import CERTIFICATE, HttpServer
from towline.server.process.places import Places

LOGS = "/v1/jobs/j/tasks/t/elements/0/logs"
PATIENCE_S = 60


class Leader:
    """Answers a request with 200; those for output with a head, and then no more; ``/hang`` not at all."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self.left: list[str] = []
        self.gone = asyncio.Event()
        self.shown: bytes = b""

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.shown = scope["state"][CERTIFICATE]
        self.came.set()
        path = scope["path"]
        if path != "/hang":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        if path not in ("/hang", LOGS):
            await send({"type": "http.response.body", "body": b"ok", "more_body": False})
            return
        if path == LOGS:
            await send({"type": "http.response.body", "body": b"line", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            continue
        self.left.append(path)
        self.gone.set()


class Caller:
    """Has sent its whole request, and stays until it leaves."""

    def __init__(self, path: str, method: str = "GET", body: bytes | None = None) -> None:
        headers = [] if body is None else [(b"content-length", b"%d" % len(body))]
        self.scope: Any = {"type": "http", "method": method, "path": path, "query_string": b""}
        self.scope["headers"] = headers
        self._messages = [] if body is None else [{"type": "http.request", "body": body, "more_body": False}]
        self._leaves = asyncio.Event()
        self.heard: list[dict[str, Any]] = []
        self.hears = asyncio.Event()

    async def receive(self) -> Any:
        if self._messages:
            return self._messages.pop()
        await self._leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.heard.append(cast("dict[str, Any]", message))
        self.hears.set()

    def leave(self) -> None:
        self._leaves.set()


class World:
    def __init__(self, carrying: Carrying, row: ServerRow, leader: Leader) -> None:
        self.carrying = carrying
        self.row = row
        self.leader = leader
        self.going: list[asyncio.Task[None]] = []

    def ask(self, caller: Caller) -> asyncio.Task[None]:
        scope = caller.scope
        carried = self.carrying.http(self.row, scope, scope["headers"], caller.receive, caller.send)
        self.going.append(asyncio.create_task(carried))
        return self.going[-1]

    async def streams(self, count: int) -> list[Caller]:
        """So many who follow output, each of whom has heard of it."""
        callers = [Caller(LOGS) for _ in range(count)]
        for caller in callers:
            self.ask(caller)
        for caller in callers:
            await asyncio.wait_for(caller.hears.wait(), PATIENCE_S)
        return callers


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(layer, "CONNECTIONS", 2)
    monkeypatch.setattr(layer, "STREAMS", 3)
    authority = Authority(make_authority("test", 1, datetime.datetime.now(datetime.UTC)))
    leader = Leader()
    server = HttpServer(leader.app)
    listener = bind_port("127.0.0.1", 0)
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    await server.start(listener, server_context(authority.server(["127.0.0.1"]), authority.certificate))
    carrying = Carrying(authority, "me")
    row = ServerRow(id="l", name="leader", address=address, build="b", started_at=1)
    made = World(carrying, row, leader)
    yield made
    for task in made.going:
        task.cancel()
    await asyncio.gather(*made.going, return_exceptions=True)
    await carrying.close()
    await server.close(0.1)


async def test_what_lasts_takes_no_place_of_what_is_answered_soon(world: World) -> None:
    callers = await world.streams(3)
    with pytest.raises(Full, match=rf"passes on 3 streams .* ask the leader at {world.row.address} itself"):
        await world.ask(Caller(LOGS))
    for _ in range(5):
        short = Caller("/v1/queues", body=b"{}", method="PUT")
        await asyncio.wait_for(world.ask(short), PATIENCE_S)
        assert [message.get("status") for message in short.heard][:1] == [200]
    callers[0].leave()
    await asyncio.wait_for(world.going[0], PATIENCE_S)
    await world.streams(1)


async def test_who_goes_away_before_the_answer_begins_holds_nothing_any_more(world: World) -> None:
    for method, body in (("GET", None), ("POST", b"{}")):
        world.leader.came.clear()
        world.leader.gone.clear()
        callers = [Caller("/hang", method, body) for _ in range(2)]
        going = [world.ask(caller) for caller in callers]
        await asyncio.wait_for(world.leader.came.wait(), PATIENCE_S)
        for caller in callers:
            caller.leave()
        await asyncio.wait_for(asyncio.gather(*going), PATIENCE_S)
        assert all(caller.heard == [] for caller in callers)
        await asyncio.wait_for(world.leader.gone.wait(), PATIENCE_S)  # the leader hears of it too
        await asyncio.wait_for(world.ask(Caller("/v1/queues")), PATIENCE_S)


async def test_the_leader_has_places_for_all_that_a_server_passes_on(world: World) -> None:
    await world.ask(Caller("/v1/queues"))
    assert is_server(world.leader.shown)
    places = Places(1)
    assert all(places.take(one, "a", world.leader.shown) for one in range(CONNECTIONS + STREAMS))
    assert not all(places.take(1000 + one, "a", world.leader.shown) for one in range(PER_SERVER))


def test_what_lasts_is_the_leaders() -> None:
    from towline.server.access.rules import RULES

    assert set(LASTING) <= set(RULES)
    assert is_lasting("GET", LOGS) and not is_lasting("GET", "/v1/jobs/j/why")
    assert not any(is_anywhere(method, path.replace("{", "").replace("}", "")) for method, path in LASTING)
