"""What a server answers itself, what goes to the leader, and what happens where there is none."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest
from litestar.types import Message, Receive, Scope, Send

from towline.core.leadership import ServerRow
from towline.identity.roles import EVERYWHERE, LOCAL, Principal, Role
from towline.server.access.guard import PRINCIPAL
from towline.server.access.rules import RULES
from towline.server.peers import passing as layer
from towline.server.peers.anywhere import ANYWHERE, is_anywhere
from towline.server.peers.callers import HEADER, PASSED_ON, POOL
from towline.server.peers.passing import Headers, NotReached, passing

LEADER = ServerRow(id="l", name="leader", address="10.0.0.1:7443", build="b", started_at=1)
ADA = Principal(name="token ada", role=Role.ADMIN, namespace=EVERYWHERE)


class World:
    """A server that follows (``me``), who it believes to lead, and a leader that answers or does not."""

    id = "me"

    def __init__(self) -> None:
        self.leader: ServerRow | None = LEADER
        self.leads = False
        self.own: list[str] = []
        self.carried: list[tuple[str, dict[bytes, bytes]]] = []
        self.fails: Exception | None = None
        self.begin: list[Message] = []
        self.asked = asyncio.Event()
        self.hangs = asyncio.Event()
        self.hangs.set()
        self.sent: list[dict[str, Any]] = []
        self.asked_for: list[str] = []
        self.door = passing(self._app, "p", self, self._leads, self, "here")

    def _leads(self, pool: str) -> bool:
        self.asked_for.append(pool)
        return self.leads

    def leader_of(self, pool: str) -> ServerRow | None:
        return self.leader

    def free_in_ms(self, pool: str) -> int:
        return 4_200

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.own.append(scope["path"])

    async def http(self, to: ServerRow, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        self.carried.append((to.address, dict(headers)))
        self.asked.set()
        for message in self.begin:
            await send(message)
        await self.hangs.wait()
        if self.fails is not None:
            raise self.fails
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def websocket(
        self, to: ServerRow, scope: Scope, headers: Headers, receive: Receive, send: Send
    ) -> None:
        await self.http(to, scope, headers, receive, send)

    async def ask(
        self, method: str, path: str, who: Principal | None = ADA, kind: str = "http", **state: Any
    ) -> dict[str, Any]:
        """The first message of the answer, with its body."""
        scope: Any = {
            "type": kind,
            "path": path,
            "headers": [(b"host", b"here"), (b"authorization", b"Bearer t"), (HEADER, b"forged")],
            "client": ("10.9.9.9", 1),
            "state": {PRINCIPAL: who, **state},
        }
        if kind == "http":
            scope["method"] = method
        self.sent = []

        opening = [{"type": "websocket.connect"}]

        async def receive() -> Any:
            if kind == "http":
                return {"type": "http.request"}
            if not opening:
                await asyncio.Event().wait()  # as a server does: what comes next is the caller's end
            return opening.pop()

        async def send(message: Message) -> None:
            self.sent.append(cast("dict[str, Any]", message))

        await self.door(scope, receive, send)
        return self.sent[0] if self.sent else {}


EXEC = "/v1/jobs/j/tasks/t/elements/0/exec"


@pytest.fixture
async def world() -> World:
    return World()


def test_what_is_answered_anywhere_is_known_to_the_rules() -> None:
    assert set(ANYWHERE) <= set(RULES)


@pytest.mark.parametrize(
    ("method", "path", "anywhere"),
    [
        ("GET", "/v1/jobs", True),
        ("HEAD", "/v1/jobs/x", True),
        ("GET", "/v1/jobs/x/events", True),
        ("POST", "/v1/jobs", False),
        ("GET", "/v1/jobs/x/why", False),
        ("GET", "/v1/jobs/x/tasks/y/elements/0/logs", False),
        ("GET", "/v1/nodes", False),
        ("GET", "/v1/unknown", False),
        ("GET", "/healthz", True),
    ],
)
def test_facts_are_answered_anywhere(method: str, path: str, anywhere: bool) -> None:
    assert is_anywhere(method, path) is anywhere


async def test_a_follower_answers_facts_and_passes_on_the_rest(world: World) -> None:
    await world.ask("GET", "/v1/jobs")
    assert world.own == ["/v1/jobs"] and world.carried == []
    assert (await world.ask("POST", "/v1/jobs"))["status"] == 200
    ((address, headers),) = world.carried
    assert address == LEADER.address and headers[b"host"] == LEADER.address.encode()
    assert headers[b"authorization"] == b"Bearer t"
    assert json.loads(headers[HEADER]) == {"source": "10.9.9.9", "pool": "p"}


async def test_a_leader_answers_everything(world: World) -> None:
    world.leads = True
    await world.ask("POST", "/v1/jobs")
    assert world.own == ["/v1/jobs"] and world.carried == []


async def test_the_owner_of_a_socket_is_the_owner_at_the_leader_too(world: World) -> None:
    await world.ask("POST", "/v1/jobs", LOCAL)
    assert json.loads(world.carried[0][1][HEADER]) == {"source": "socket of here", "local": True, "pool": "p"}


async def test_who_is_not_known_takes_no_place_at_the_leader(world: World) -> None:
    await world.ask("POST", "/v1/jobs", None)
    await world.ask("GET", "/healthz", None)
    assert world.own == ["/v1/jobs", "/healthz"] and world.carried == []


async def test_a_new_node_shows_its_join_link_to_the_leader(world: World) -> None:
    await world.ask("POST", "/v1/enrol", None)
    assert world.own == [] and len(world.carried) == 1


async def test_a_request_goes_to_the_leader_of_its_pool_and_says_which(world: World) -> None:
    await world.ask("POST", "/v1/jobs", **{POOL: "gpu"})
    ((_, headers),) = world.carried
    assert world.asked_for == ["gpu"] and json.loads(headers[HEADER])["pool"] == "gpu"
    world.carried.clear()
    world.asked_for.clear()
    await world.ask("POST", "/v1/jobs")
    ((_, headers),) = world.carried
    assert world.asked_for == ["p"] and json.loads(headers[HEADER])["pool"] == "p"


@pytest.mark.parametrize("what", ["nobody", "myself", "once more"])
async def test_where_it_cannot_be_passed_on_the_caller_is_to_come_again(world: World, what: str) -> None:
    if what == "nobody":
        world.leader = None
    elif what == "myself":
        world.leader = ServerRow(id="me", name="me", address="a:1", build="b", started_at=1)
    answer = await world.ask("POST", "/v1/jobs", **({PASSED_ON: True} if what == "once more" else {}))
    assert answer["status"] == 503 and world.carried == []
    assert dict(answer["headers"])[b"retry-after"] == b"2"
    closed = await world.ask("", EXEC, kind="websocket", **{PASSED_ON: True})
    assert (closed["type"], closed["status"]) == ("websocket.http.response.start", 503)


async def test_a_leader_that_cannot_be_reached_is_no_error_of_the_caller(world: World) -> None:
    world.fails = NotReached("refused")
    assert (await world.ask("POST", "/v1/jobs"))["status"] == 503
    assert (await world.ask("", EXEC, kind="websocket"))["status"] == 503


@pytest.mark.parametrize("path", ["*", "*@10.0.0.5:22/x", "@10.0.0.5/x", ""])
async def test_what_is_no_path_leads_to_no_other_machine(world: World, path: str) -> None:
    """It is put behind the leader's address."""
    answer = await world.ask("POST", path)
    assert (answer["status"], world.carried) == (400, [])


async def test_a_frozen_leader_is_waited_for_until_it_leads_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer, "LOOK_S", 0.01)
    world.hangs.clear()
    asking = asyncio.create_task(world.ask("POST", "/v1/jobs"))
    await world.asked.wait()
    world.leader = None
    assert (await asking)["status"] == 503


async def test_an_answer_that_breaks_off_is_no_whole_one(world: World) -> None:
    world.begin = [{"type": "http.response.start", "status": 200, "headers": []}]
    world.fails = NotReached("gone")
    with pytest.raises(ConnectionAbortedError):
        await world.ask("POST", "/v1/jobs")
    assert [message["type"] for message in world.sent] == ["http.response.start"]
