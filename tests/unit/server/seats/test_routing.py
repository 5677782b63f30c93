"""Which pool a request is about, and what happens where that is not there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from litestar.types import Receive, Scope, Send
from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing

from towline.core.routing import Offer
from towline.errors import NotFound, StoreError
from towline.identity.roles import EVERYWHERE, Principal, Role
from towline.server.access.guard import PRINCIPAL
from towline.server.intake import PREPARED
from towline.server.peers.callers import POOL
from towline.server.seats.routing import Routing, routed
from towline.store.memory import MemoryStore
from towline.store.port import Reservation

ADA = Principal(name="token ada", role=Role.ADMIN, namespace=EVERYWHERE)
DOCUMENT = {"name": "j", "tasks": {"main": {"runtime": "process", "command": ["true"]}}}


class World:
    """Three pools; ``offers`` is what they say of a job."""

    home_pool = "default"

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.pools = ["default", "east", "west"]
        self.offers_of: dict[str, Offer] = {}
        self.asked: list[Sequence[str]] = []
        self.enrolled: dict[str, str] = {}
        self.seen: list[dict[str, Any]] = []
        self.body = b""
        self.made_elsewhere: list[str] = []
        self.looks = 0
        self.door = routed(self._app, Routing(self, self.store, self, self.enrolled.get, 10_000, self.look))

    async def look(self) -> None:
        self.looks += 1
        self.pools = sorted({*self.pools, *self.made_elsewhere})

    def names(self) -> list[str]:
        return self.pools

    def known(self, pool: str) -> str:
        if pool not in self.pools:
            raise NotFound(f"no pool {pool}")
        return pool

    async def offers(self, scope: Scope, pools: Sequence[str], body: bytes) -> list[Offer]:
        self.asked.append(pools)
        return [self.offers_of[pool] for pool in pools if pool in self.offers_of]

    async def gather(self, scope: Scope, pools: Sequence[str], send: Send) -> None:
        self.asked.append(pools)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(dict(scope["state"]))
        self.body = b""
        while scope["path"] == "/v1/jobs":
            message: Any = await receive()
            self.body += message.get("body", b"")
            if not message.get("more_body"):
                return

    async def ask(self, target: str, method: str = "GET", **more: Any) -> Any:
        """The pool that was found; the status where the request was refused."""
        path, _, query = target.partition("?")
        parts: list[bytes] = more.pop("parts", [b""])
        headers = [(name.encode(), value.encode()) for name, value in more.pop("headers", {}).items()]
        scope: Any = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": headers,
            "state": {PRINCIPAL: more.pop("who", ADA), **more},
        }
        said: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        async def send(message: Any) -> None:
            said.append(message)

        self.seen.clear()
        await self.door(scope, receive, send)
        if said:
            return said[0]["status"]
        return self.seen[0][POOL] if self.seen else None

    async def submit(self, pool: Any = None, **more: Any) -> Any:
        document = DOCUMENT if pool is None else {**DOCUMENT, "pool": pool}
        body = json.dumps({"document": document}).encode()
        return await self.ask("/v1/jobs", "POST", parts=[body[:20], body[20:]], **more)


@pytest.fixture
async def world() -> World:
    made = World()
    for pool, job, node in (("default", "j1", "n1"), ("east", "j2", "n2")):
        leader = await Writing.lead(made.store, pool)
        await leader.commit(
            jobs=[rows.job(job, 1, pool=pool, name=f"of-{pool}")],
            specs=[rows.spec(job)],
            nodes=[rows.node(node, name=f"name-{node}")],
        )
    return made


async def test_a_job_and_a_node_are_of_the_pool_that_their_rows_say(world: World) -> None:
    assert await world.ask("/v1/jobs/j1") == "default"
    assert await world.ask("/v1/jobs/j2/why") == "east"
    assert await world.ask("/v1/jobs/of-east/cancel", "POST") == "east"
    assert await world.ask("/v1/usage?job=j2") == "east"
    assert await world.ask("/v1/nodes/n2/drain", "POST") == "east"
    assert await world.ask("/v1/nodes/name-n2") == "east"
    assert await world.ask("/v1/images?node=name-n2") == "east"
    assert await world.ask("/v1/jobs/nothing") == "default"


async def test_a_node_that_has_never_come_is_of_the_pool_that_it_enrolled_for(world: World) -> None:
    world.enrolled["n9"] = "west"
    assert await world.ask("/v1/nodes/n9", "DELETE") == "west"


async def test_a_name_of_nodes_of_two_pools_is_not_guessed_at(world: World) -> None:
    other = await Writing.lead(world.store, "west")
    await other.commit(nodes=[rows.node("n7", name="name-n2")])
    assert await world.ask("/v1/nodes/name-n2/drain", "POST") == 404


async def test_what_is_another_namespaces_is_not_found_by_its_name(world: World) -> None:
    other = Principal(name="token eve", role=Role.ADMIN, namespace="eve")
    assert await world.ask("/v1/jobs/j2", who=other) == "default"


async def test_a_pool_that_is_named_is_heeded_or_refused(world: World) -> None:
    assert await world.ask("/v1/queues?pool=west") == "west"
    assert await world.ask("/v1/pools/east") == "east"
    assert await world.ask("/v1/events?cursor=east:17") == "east"
    assert await world.ask("/v1/queues") == "default"
    assert await world.ask("/v1/queues?pool=north") == 404
    for path in ("/v1/queues?pool=north", "/v1/queues?pool=west", "/v1/pools/north", "/v1/pools/west"):
        assert await world.ask(path, who=None) == "default"  # where the API refuses him


async def test_what_another_server_has_settled_stands(world: World) -> None:
    assert await world.ask("/v1/jobs/j2", **{POOL: "west"}) == "west"


async def test_all_pools_are_asked_for_their_nodes_unless_one_is_named(world: World) -> None:
    assert await world.ask("/v1/nodes") is None and world.asked == [world.pools]
    assert await world.ask("/v1/nodes?pool=east") == "east"
    assert await world.ask("/v1/nodes", "POST") == "default" and world.asked == [world.pools]
    world.pools = ["default"]
    assert await world.ask("/v1/nodes") == "default"


async def test_a_submission_goes_where_it_says(world: World) -> None:
    assert await world.submit() == "default"
    assert await world.submit("west") == "west"
    assert json.loads(world.body)["document"]["pool"] == "west"
    assert world.seen[0][PREPARED].spec.pool == ("west",)
    assert await world.submit("north") == "default"  # whose leader says that there is none
    assert world.asked == []


async def test_any_pool_is_the_one_that_takes_the_job_best(world: World) -> None:
    for pool, room in (("default", 0.2), ("east", 0.1), ("west", 0.9)):
        world.offers_of[pool] = Offer(pool=pool, fits=True, room=room, backlog=0.0)
    assert await world.submit("any") == "west"
    assert await world.submit(["default", "east"]) == "default"
    del world.offers_of["west"]  # its leader does not answer
    assert await world.submit("any") == "default"
    world.offers_of.clear()
    assert await world.submit("any") == 503


async def test_a_repeat_goes_where_the_job_was_sent_before(world: World) -> None:
    world.offers_of["east"] = Offer(pool="east", fits=True, room=1.0, backlog=0.0)
    stands = Reservation(namespace="default", key="k", digest="d", job="j", pool="west")
    await world.store.reserve([stands])
    assert await world.submit("any", headers={"idempotency-key": "k"}) == "west"
    assert await world.submit("any", headers={"idempotency-key": "other"}) == "east"
    assert len(world.asked) == 1


async def test_what_is_no_job_or_too_large_or_from_nobody_is_left_to_the_api(world: World) -> None:
    assert await world.ask("/v1/jobs", "POST", parts=[b"{"]) == "default" and world.body == b"{"
    large = [b"x" * 6_000, b"y" * 6_000, b"z"]
    assert await world.ask("/v1/jobs", "POST", parts=list(large)) == "default"
    assert world.body == b"".join(large)
    assert await world.submit("any", who=None) == "default" and PREPARED not in world.seen[0]


async def test_a_store_that_fails_is_told_as_such(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: Any) -> Any:
        raise StoreError("gone")

    monkeypatch.setattr(world.store, "find_jobs", fails)
    assert await world.ask("/v1/jobs/j2") == 503


async def test_a_job_is_of_its_pool_whatever_pool_the_request_names(world: World) -> None:
    assert await world.ask("/v1/jobs/j2/retry?pool=west", "POST") == "east"
    assert await world.ask("/v1/jobs/j1/cancel?pool=west", "POST") == "default"
    assert await world.submit() == "default"
    body = json.dumps({"document": {**DOCUMENT, "pool": "east"}}).encode()
    assert await world.ask("/v1/jobs?pool=west", "POST", parts=[body]) == "east"
    assert await world.ask("/v1/secrets/s?pool=west", "PUT") == "default"


async def test_a_pool_that_another_server_has_just_made_is_looked_for(world: World) -> None:
    world.made_elsewhere = ["new", "newer"]
    assert await world.ask("/v1/queues?pool=new") == "new" and world.looks == 1
    assert await world.ask("/v1/queues?pool=north") == 404 and world.looks == 2
    world.pools.remove("newer")
    stands = Reservation(namespace="default", key="k", digest="d", job="j", pool="newer")
    await world.store.reserve([stands])
    assert await world.submit("any", headers={"idempotency-key": "k"}) == "newer"


async def test_pools_are_not_asked_for_those_who_may_not(world: World) -> None:
    viewer = Principal(name="token eve", role=Role.VIEWER, namespace="eve")
    node = Principal(name="node n1", role=None, namespace=EVERYWHERE, node="node-1")
    mine = Principal(name="token bob", role=Role.SUBMITTER, namespace="bob")
    assert await world.submit("any", who=viewer) == "default"
    assert await world.submit("any", who=node) == "default"
    headers = {"towline-namespace": "eve", "idempotency-key": "k"}
    assert await world.submit("any", who=mine, headers=headers) == "default"
    assert await world.ask("/v1/queues?pool=north", who=node) == "default"
    assert await world.ask("/v1/nodes/name-n2", who=node) == "default"
    assert await world.ask("/v1/nodes", who=node) == "default"
    assert world.asked == [] and PREPARED not in world.seen[0]
