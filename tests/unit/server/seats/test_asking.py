"""What a server asks in a caller's name, and how the answers of all pools become one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from litestar.types import Receive, Scope, Send

from towline.core.routing import Offer
from towline.errors import Unavailable
from towline.model.views import PoolView
from towline.server.peers.callers import PASSED_ON, POOL
from towline.server.seats import asking as layer
from towline.server.seats.asking import Asking


class World:
    """The layers behind: ``answers`` by pool; one that is missing does not answer."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.heard: list[tuple[str, str, str, bytes]] = []
        self.scopes: list[dict[str, Any]] = []
        self.asking = Asking()
        self.asking.app = self._app
        self.said: list[Any] = []

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked: Any = scope
        self.scopes.append(asked)
        message: Any = await receive()
        pool = asked["state"][POOL]
        self.heard.append((pool, asked["method"], asked["path"], message["body"]))
        if pool not in self.answers:
            await receive()  # the caller stays
            raise AssertionError
        status, body = self.answers[pool]
        await send({"type": "http.response.start", "status": status, "headers": [(b"x", pool.encode())]})
        for part in json.dumps(body).encode().partition(b":"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def send(self, message: Any) -> None:
        self.said.append(message)

    @property
    def told(self) -> tuple[int, Any]:
        return self.said[0]["status"], json.loads(self.said[1]["body"])


SCOPE: Any = {
    "type": "http",
    "method": "POST",
    "path": "/v1/nodes",
    "query_string": b"x=1",
    "headers": [(b"authorization", b"Bearer t"), (b"content-length", b"9")],
    "client": ("10.0.0.9", 1),
    "route_handler": "of the request that came",
    "state": {"towline_principal": "ada", "towline_passed_on": True, "_ls_state": "of the API"},
}


@pytest.fixture
def world() -> World:
    return World()


async def test_a_request_is_the_callers_and_nothing_of_the_one_that_it_is_made_for(world: World) -> None:
    world.answers["east"] = 200, {}
    await world.asking.ask(SCOPE, "east", "GET", "/v1/pools/east")
    (made,) = world.scopes
    assert made["headers"] == [(b"authorization", b"Bearer t")] and made["client"] == ("10.0.0.9", 1)
    assert made["state"] == {"towline_principal": "ada", POOL: "east"} and "route_handler" not in made
    assert SCOPE["state"] == {"towline_principal": "ada", PASSED_ON: True, "_ls_state": "of the API"}


async def test_the_lists_of_all_pools_become_one(world: World) -> None:
    world.answers = {"a": (200, {"nodes": [1, 2]}), "b": (200, {"nodes": [3]})}
    await world.asking.gather(SCOPE, ["a", "b"], world.send)
    assert world.told == (200, {"nodes": [1, 2, 3]})
    headers = dict(world.said[0]["headers"])
    assert int(headers[b"content-length"]) == len(world.said[1]["body"])


async def test_a_list_in_which_a_pool_is_missing_is_no_list(world: World) -> None:
    world.answers = {"a": (200, {"nodes": [1]}), "b": (503, {"detail": "no leader"})}
    await world.asking.gather(SCOPE, ["a", "b"], world.send)
    assert world.told == (503, {"detail": "no leader"})


async def test_a_pool_without_nodes_leaves_the_usage_of_the_others(world: World) -> None:
    none = {"type": "urn:towline:problem:no_node"}
    usage = {"nodes": [{"a": 1}], "elements": [2], "interval_seconds": None}
    world.answers = {"a": (200, usage), "b": (503, none)}
    await world.asking.gather({**SCOPE, "path": "/v1/usage"}, ["a", "b"], world.send)
    assert world.told == (200, {"nodes": [{"a": 1}], "elements": [2]})
    world.said.clear()
    del world.answers["a"]
    await world.asking.gather({**SCOPE, "path": "/v1/usage"}, ["b"], world.send)
    assert world.told == (503, none)


async def test_usage_in_which_a_pool_without_a_leader_is_missing_is_no_usage(world: World) -> None:
    none = {"type": "urn:towline:problem:unavailable"}
    world.answers = {"a": (200, {"nodes": [1], "elements": [2]}), "b": (503, none)}
    await world.asking.gather({**SCOPE, "path": "/v1/usage"}, ["a", "b"], world.send)
    assert world.told == (503, none)


async def test_pools_that_do_not_answer_make_no_offer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "PATIENCE_S", 0.05)
    offer = {"pool": "a", "fits": True, "room": 0.5, "backlog": 0.1}
    world.answers = {"a": (200, offer), "b": (503, {})}
    found = await asyncio.wait_for(world.asking.offers(SCOPE, ["a", "b", "silent"], b"{}"), 5)
    assert found == [Offer(pool="a", fits=True, room=0.5, backlog=0.1)]
    assert sorted(world.heard) == [(pool, "POST", "/v1/offer", b"{}") for pool in ("a", "b", "silent")]


async def test_a_frozen_pool_delays_no_job_that_fits_elsewhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer, "PATIENCE_S", 1000)
    monkeypatch.setattr(layer, "MOMENT_S", 0.05)
    world.answers = {"a": (200, {"pool": "a", "fits": True, "room": 0.5, "backlog": 0.1})}
    found = await asyncio.wait_for(world.asking.offers(SCOPE, ["frozen", "a"], b"{}"), 5)
    assert [offer.pool for offer in found] == ["a"]


async def test_what_another_version_answers_is_no_offer(world: World) -> None:
    offer = {"pool": "a", "fits": False, "room": 0.0, "backlog": 0.1}
    world.answers = {"a": (200, offer), "b": (200, {"new": 1}), "c": (200, [])}
    found = await asyncio.wait_for(world.asking.offers(SCOPE, ["a", "b", "c"], b"{}"), 5)
    assert [offer.pool for offer in found] == ["a"]


async def test_views_are_of_those_that_answer(world: World) -> None:
    world.answers = {"a": (200, {"pool": "a", "nodes": 3}), "b": (500, {})}
    found = await world.asking.views(SCOPE, ["a", "b"], PoolView)
    assert found == {"a": PoolView(pool="a", nodes=3)}


async def test_a_leader_that_goes_in_the_middle_of_its_answer_is_asked_again_and_makes_no_offer(
    world: World,
) -> None:
    behind = world.asking.app
    assert behind is not None

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["state"][POOL] == "dying":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise ConnectionAbortedError("the leader is gone in the middle of an answer")
        await behind(scope, receive, send)

    world.asking.app = app
    world.answers = {"a": (200, {"nodes": [1]})}
    with pytest.raises(Unavailable, match="dying"):
        await world.asking.gather(SCOPE, ["a", "dying"], world.send)
    assert world.said == []
    world.answers = {"a": (200, {"pool": "a", "fits": True, "room": 0.5, "backlog": 0.1})}
    found = await asyncio.wait_for(world.asking.offers(SCOPE, ["a", "dying"], b"{}"), 5)
    assert [offer.pool for offer in found] == ["a"]
