"""Agents' links: Hello, reports, orders, output, and what happens when links come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from structlog.testing import capture_logs
from tests.builders import task
from tests.unit.server.conftest import FaultyStore, report, submit_command

from towline.core.commands import AttemptUpdate
from towline.core.rows import GpuDevice
from towline.errors import NotFound, StoreError, Unavailable
from towline.model.job import Array, TaskSpec
from towline.server.events import Feed
from towline.server.gateway import Gateway
from towline.server.leader import InHand, Leader
from towline.server.leader.clock import Clock
from towline.server.settings import Settings
from towline.wire.messages import (
    VERSION,
    Ack,
    FromAgent,
    FromServer,
    Goodbye,
    Heartbeat,
    HeartbeatAnswer,
    Hello,
    ImageAnswer,
    ImageCall,
    LeaseTimes,
    LogChunk,
    Pin,
    ReadLog,
    Refused,
    Report,
    Start,
    Stop,
    TaskInfo,
    Welcome,
    decode_from_server,
    encode,
)
from towline.wire.usage import AttemptUsage, ReadUsage, UsageAnswer

M = TypeVar("M")


class Agent:
    """The other end of a link, in this process: frames over two queues."""

    def __init__(self, gateway: Gateway) -> None:
        self._out: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._in: asyncio.Queue[FromServer | None] = asyncio.Queue()
        self.frames = 0
        self.serving = asyncio.create_task(gateway.serve(self, self._frames()))

    async def _frames(self) -> AsyncIterator[bytes]:
        while (frame := await self._out.get()) is not None:
            yield frame

    async def send(self, frame: bytes) -> None:
        self.frames += 1
        for message in decode_from_server(frame):
            self._in.put_nowait(message)

    async def close(self) -> None:
        self._in.put_nowait(None)

    def say(self, *messages: FromAgent) -> None:
        self._out.put_nowait(encode(messages))

    def hang_up(self) -> None:
        self._out.put_nowait(None)

    async def hear(self, kind: type[M]) -> M:
        """The next message of a kind; others before it are passed over."""
        async with asyncio.timeout(10):
            while True:
                message = await self._in.get()
                assert message is not None, f"closed before a {kind.__name__}"
                if isinstance(message, kind):
                    return message

    async def next(self) -> FromServer | None:
        """The next message; None when the link is closed."""
        return await self._in.get()

    async def until_closed(self) -> list[FromServer]:
        heard: list[FromServer] = []
        async with asyncio.timeout(10):
            while (message := await self._in.get()) is not None:
                heard.append(message)
        return heard


class World:
    def __init__(self, folder: Path, **changes: str) -> None:
        self.store = FaultyStore()
        settings = Settings(
            home=folder, backoff_first_ms=1, backoff_max_ms=5, read_log_timeout_s=0.05, **changes
        )
        self.gateway = Gateway(Feed("default", self.store, 1000), settings)
        self.leader = Leader(self.store, Clock(), settings, InHand(folder / "in-hand"), self.gateway)
        self.gateway.attach(self.leader)


class Others:
    """What this server knows of others: ``found`` is who leads, once somebody has looked."""

    def __init__(self) -> None:
        self.known = self.found = ("", 0)

    def urls(self) -> tuple[str, ...]:
        return ("https://a:1", "https://b:1")

    def leader(self) -> tuple[str, int]:
        return self.known

    def no_leader_ms(self) -> int:
        return 70

    async def look(self) -> None:
        await asyncio.sleep(0)
        self.known = self.found


@asynccontextmanager
async def led(folder: Path) -> AsyncGenerator[World]:
    """A world whose leader leads."""
    made = World(folder)
    await made.store.open()
    running = asyncio.create_task(made.leader.run())
    await made.leader.ready.wait()
    yield made
    made.leader.end()
    await running


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with led(tmp_path) as made:
        yield made


def hello(**changes: object) -> Hello:
    fields: dict[str, object] = {
        "version": VERSION,
        "build": "b",
        "node": "n1",
        "name": "node-1",
        "instance": "i1",
        "boot_id": "boot",
        "cpu_milli": 4000,
        "memory_bytes": 2**33,
        "pids": 10_000,
        "labels": {},
        "runtimes": {"process": None},
    }
    return Hello(**{**fields, **changes})  # type: ignore[arg-type]


async def linked(world: World, **changes: object) -> Agent:
    agent = Agent(world.gateway)
    agent.say(hello(**changes))
    await agent.hear(Welcome)
    return agent


async def test_a_task_is_introduced_once_and_its_elements_start_together(world: World) -> None:
    agent = await linked(world)
    await world.leader.ask(submit_command("j1", a=task(array=4), b=task("false", needs="a")))
    info = await agent.hear(TaskInfo)
    assert (info.job, info.task, info.task_name, info.job_name) == ("j1", 0, "a", "name-j1")
    start = await agent.hear(Start)
    assert (start.task, start.elements) == (0, ((0, 1), (1, 1), (2, 1), (3, 1)))
    agent.say(Report(seq=1, updates=report(*(("j1", 0, index, 1) for index in range(4))).updates))
    ack = await agent.hear(Ack)
    assert (ack.seq, len(ack.forget)) == (1, 4)
    assert (await agent.hear(TaskInfo)).spec.command == ("false",)
    agent.hang_up()
    await agent.serving


async def test_reports_of_one_frame_are_one_commit_and_each_is_acknowledged(world: World) -> None:
    agent = await linked(world)
    await world.leader.ask(submit_command("j1", a=task(array=2)))
    await agent.hear(Start)
    before = len(world.store.sizes)
    agent.say(
        Report(seq=7, updates=report(("j1", 0, 0, 1)).updates),
        Report(seq=8, updates=report(("j1", 0, 1, 1)).updates),
    )
    assert [(await agent.hear(Ack)).seq for _ in range(2)] == [7, 8]
    assert len(world.store.sizes) == before + 1
    agent.hang_up()
    await agent.serving


async def test_an_unacknowledged_report_is_taken_again_by_the_next_leader(world: World) -> None:
    agent = await linked(world)
    await world.leader.ask(submit_command("j1", a=task()))
    await agent.hear(Start)
    done = report(("j1", 0, 0, 1)).updates
    world.store.before = StoreError("no space")
    agent.say(Report(seq=1, updates=done))
    assert not any(isinstance(message, Ack) for message in await agent.until_closed())
    await world.leader.ready.wait()
    again = Agent(world.gateway)
    again.say(hello(known=done))
    await again.hear(Welcome)
    assert (await again.hear(Ack)).forget == ("j1-0-0-1",)
    found = await world.store.job("j1")
    assert found is not None
    assert found[0].state == "succeeded"
    again.hang_up()
    await again.serving


async def test_a_second_link_replaces_the_first_and_gets_its_orders_again(world: World) -> None:
    first = await linked(world)
    await world.leader.ask(submit_command("j1", a=task()))
    await first.hear(Start)
    second = await linked(world)  # it knows nothing: the order was lost with the first link
    await first.until_closed()
    assert (await second.hear(Start)).elements == ((0, 1),)
    await first.serving
    assert world.gateway.connected_nodes == ["n1"]
    second.hang_up()
    await second.serving


async def test_a_cancelled_element_is_stopped(world: World) -> None:
    from towline.core.commands import Cancel

    agent = await linked(world)
    await world.leader.ask(submit_command("j1", a=task(grace_ms=7)))
    await agent.hear(Start)
    await world.leader.ask(Cancel(job="j1"))
    stop = await agent.hear(Stop)
    assert (stop.attempt, stop.reason, stop.grace_ms) == ("j1-0-0-1", "cancelled", 7)
    agent.hang_up()
    await agent.serving


async def test_heartbeats_come_back_with_the_term(world: World) -> None:
    agent = await linked(world)
    agent.say(Heartbeat(sent_boottime_ms=123))
    assert await agent.hear(HeartbeatAnswer) == HeartbeatAnswer(term=1, sent_boottime_ms=123)
    agent.hang_up()
    await agent.serving


async def test_a_node_that_was_declared_lost_is_not_answered_but_has_to_come_back(world: World) -> None:
    agent = await linked(world)
    node = world.leader.opinion(lambda pool: pool.state.nodes["n1"])
    node.row.state = "lost"
    agent.say(Heartbeat(sent_boottime_ms=123))
    assert not [said for said in await agent.until_closed() if isinstance(said, HeartbeatAnswer)]
    await agent.serving
    agent = await linked(world)
    agent.say(Heartbeat(sent_boottime_ms=124))
    assert (await agent.hear(HeartbeatAnswer)).sent_boottime_ms == 124
    agent.hang_up()
    await agent.serving


@pytest.mark.parametrize("listen", ["", "127.0.0.1:1"])
async def test_only_a_cluster_grants_leases(tmp_path: Path, listen: str) -> None:
    world = World(tmp_path, listen=listen, node_lease="7s", heartbeat="300ms")
    await world.store.open()
    running = asyncio.create_task(world.leader.run())
    await world.leader.ready.wait()
    agent = Agent(world.gateway)
    agent.say(hello())
    welcome = await agent.hear(Welcome)
    assert welcome.heartbeat_ms == 300
    assert welcome.lease == (LeaseTimes(lease_ms=7_000, grace_ms=3_000) if listen else None)
    agent.hang_up()
    await agent.serving
    world.leader.end()
    await running


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (hello(version=99), "version"),
        (Heartbeat(sent_boottime_ms=1), "Hello"),
        (hello(name="n1\nn2"), "printable"),
        (hello(memory_bytes=2**63), "memory_bytes is 9223372036854775808"),
        (hello(cpu_milli=-1), "cpu_milli is -1"),
        (hello(gpus=(GpuDevice(id="g", model="m", memory_bytes=2**63),)), "GPU g"),
    ],
)
async def test_whoever_speaks_otherwise_is_refused(world: World, message: FromAgent, words: str) -> None:
    agent = Agent(world.gateway)
    agent.say(message)
    refused = await agent.hear(Refused)
    assert words in refused.message
    assert refused.retry_ms is None
    await agent.serving


async def test_without_a_leader_an_agent_is_told_when_to_come_back(world: World, tmp_path: Path) -> None:
    other = World(tmp_path)
    agent = Agent(other.gateway)
    agent.say(hello())
    refused = await agent.hear(Refused)
    assert refused.message == "no_leader"
    assert refused.retry_ms is not None
    await agent.serving


async def test_garbage_closes_the_link(world: World) -> None:
    agent = await linked(world)
    agent._out.put_nowait(b"\xc1 not msgpack")
    await agent.serving
    assert world.gateway.connected_nodes == []
    assert world.gateway.open_links == 0


async def test_output_is_asked_of_the_node(world: World) -> None:
    agent = await linked(world)
    asked = asyncio.create_task(world.gateway.read_log("n1", "j1-0-0-1", "stdout", 5, 100))
    request = await agent.hear(ReadLog)
    assert (request.attempt, request.stream, request.offset, request.limit) == ("j1-0-0-1", "stdout", 5, 100)
    chunk = LogChunk(request=request.request, offset=5, data=b"text", index=(), end=True)
    agent.say(chunk)
    assert await asked == chunk
    with pytest.raises(Unavailable, match="not answered"):
        await world.gateway.read_log("n1", "j1-0-0-1", "stdout", 0, 100)
    waiting = asyncio.create_task(world.gateway.read_log("n1", "j1-0-0-1", "stdout", 0, 100))
    await agent.hear(ReadLog)
    agent.hang_up()
    with pytest.raises(Unavailable):
        await waiting
    await agent.serving
    with pytest.raises(Unavailable, match="not connected"):
        await world.gateway.read_log("n1", "j1-0-0-1", "stdout", 0, 100)


async def test_usage_is_asked_of_all_nodes_and_a_silent_one_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("towline.server.gateway.USAGE_TIMEOUT_S", 0.2)
    with pytest.raises(Unavailable, match="No node is connected"):
        await world.gateway.read_usage(ReadUsage(request=0))
    agents = [await linked(world, node=name, name=name) for name in ("n1", "n2")]
    asking = asyncio.create_task(world.gateway.read_usage(ReadUsage(request=0, job="j", task=3)))
    order = await agents[0].hear(ReadUsage)
    assert (order.job, order.task, order.index) == ("j", 3, -1)
    usage = AttemptUsage("j-3-0-1", 10, 20, 30, None, 1, 0)
    agents[0].say(UsageAnswer(request=order.request, clock_us=5, attempts=(usage,)))
    (_, _, first), (node, _, second) = await asking
    assert first.attempts == (usage,)
    assert node == "n2"
    assert second.error is not None
    assert "has not answered" in second.error
    for agent in agents:
        agent.hang_up()
        await agent.serving


async def test_a_server_that_ends_says_goodbye(world: World) -> None:
    agent = await linked(world)
    world.gateway.end()
    world.leader.end()
    heard = await agent.until_closed()
    assert isinstance(heard[-1], Goodbye)
    await agent.serving


async def test_a_link_that_closes_before_its_welcome_leaves_nothing(world: World) -> None:
    world.store.gate = asyncio.Event()
    agent = Agent(world.gateway)
    world.store.started.clear()
    agent.say(hello())
    await world.store.started.wait()
    agent.hang_up()
    await agent.serving
    world.store.gate.set()
    await world.leader.ask(submit_command("j1", a=task()))
    assert world.gateway.connected_nodes == []
    found = await world.store.tasks("j1")
    assert (found[0].queued, found[0].active) == (1, 0)


async def test_an_older_link_that_ends_late_does_not_take_the_node_down(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await linked(world)
    committing, go_on = asyncio.Event(), asyncio.Event()
    commit = world.store.commit

    async def held(*arguments: Any) -> None:
        committing.set()
        await go_on.wait()
        await commit(*arguments)

    monkeypatch.setattr(world.store, "commit", held)
    second = Agent(world.gateway)
    second.say(hello())
    await committing.wait()  # the node is up again, and its Welcome waits for the commit
    first.hang_up()
    await first.serving
    go_on.set()
    await second.hear(Welcome)
    await world.leader.ask(submit_command("j1", a=task()))
    assert (await second.hear(Start)).elements == ((0, 1),)
    second.hang_up()
    await second.serving


async def test_a_task_is_pinned_to_the_image_that_its_first_element_ran(world: World) -> None:
    agent = await linked(world)
    other = await linked(world, node="n2", name="node-2", instance="i2")
    await world.leader.ask(submit_command("j1", a=task(array=8)))
    assert (await agent.hear(TaskInfo)).image_digest is None
    assert (await other.hear(TaskInfo)).image_digest is None
    running = AttemptUpdate(attempt="j1-0-0-1", state="running", image_digest=f"sha256:{'a' * 64}")
    agent.say(Report(seq=1, updates=(running,)))
    for each in (agent, other):
        pin = await each.hear(Pin)
        assert (pin.job, pin.task, pin.image_digest) == ("j1", 0, running.image_digest)
    moved = AttemptUpdate(attempt="j1-0-1-1", state="running", image_digest=f"sha256:{'b' * 64}")
    agent.say(Report(seq=2, updates=(moved,)))
    while (await agent.hear(Ack)).seq != 2:
        pass
    again = await linked(world, known=(running, moved))  # as an agent that was started again
    assert (await again.hear(TaskInfo)).image_digest == running.image_digest
    for each in (again, other):
        each.hang_up()
    await agent.until_closed()


async def test_a_login_comes_with_a_task_and_again_when_it_has_changed(world: World) -> None:
    logins = {"x:1": ("docker.io", "ada", "one")}
    world.gateway._login_for = logins.get
    agent = await linked(world)
    container = TaskSpec(image="x:1", runtime="process", command=("true",), array=Array(first=0, last=1))
    await world.leader.ask(submit_command("j1", a=container, b=task()))
    assert (await agent.hear(TaskInfo)).registry_auth == ("docker.io", "ada", "one")
    assert (await agent.hear(TaskInfo)).registry_auth is None
    logins["x:1"] = ("docker.io", "ada", "two")
    world.gateway.descriptions_changed()
    await world.leader.ask(submit_command("j2", a=container))
    assert (await agent.hear(TaskInfo)).registry_auth == ("docker.io", "ada", "two")
    agent.hang_up()
    await agent.serving


async def test_a_node_is_asked_about_its_images_and_answers_in_steps(world: World) -> None:
    agent = await linked(world)
    answers = world.gateway.image_call("node-1", ImageCall(request=0, what="pull", reference="x:1"))
    first = asyncio.ensure_future(anext(answers))
    call = await agent.hear(ImageCall)
    assert (call.what, call.reference) == ("pull", "x:1")
    agent.say(ImageAnswer(request=call.request, done=False, progress="half"))
    assert (await first).progress == "half"
    agent.say(ImageAnswer(request=call.request + 9), ImageAnswer(request=call.request, error="no"))
    assert [answer.error async for answer in answers] == ["no"]
    with pytest.raises(NotFound, match="connected are node-1"):
        world.gateway.image_call("node-9", call)
    silent = world.gateway.image_call(None, call)
    with pytest.raises(Unavailable, match="has not answered"):
        await anext(silent)
    leaving = world.gateway.image_call(None, call)
    waiting = asyncio.ensure_future(anext(leaving))
    await agent.hear(ImageCall)
    await agent.hear(ImageCall)
    agent.hang_up()
    with pytest.raises(Unavailable, match="is not connected"):
        await waiting
    await agent.serving


async def test_leases_that_are_too_short_for_so_many_nodes_are_told_of(tmp_path: Path) -> None:
    world = World(tmp_path, listen="127.0.0.1:0", node_lease="14s", heartbeat="1900ms")
    await world.store.open()
    running = asyncio.create_task(world.leader.run())
    await world.leader.ready.wait()
    told: list[int] = []
    agents: list[Agent] = []
    with capture_logs() as logged:
        for at in range(20):
            agents.append(Agent(world.gateway))
            agents[-1].say(hello(node=f"n{at}"))
            await agents[-1].hear(Welcome)
            told.append(sum("Raise node_lease" in line["event"] for line in logged))
    assert told == [0] * 19 + [1]  # 13.9 s and 5 ms a node are less than 14 s for 19 of them
    for agent in agents:
        agent.hang_up()
    await asyncio.gather(*(agent.serving for agent in agents))
    world.leader.end()
    await running


async def test_a_hello_that_comes_late_changes_nothing(world: World) -> None:
    agent = await linked(world, sent_boottime_ms=200)
    await world.leader.ask(submit_command("j1", a=task()))
    await agent.hear(Start)
    given_up = Agent(world.gateway)
    given_up.say(hello(sent_boottime_ms=100))
    refused = await given_up.hear(Refused)
    assert "another link since" in refused.message
    assert refused.retry_ms is not None
    given_up.hang_up()
    await given_up.serving
    assert world.leader.opinion(lambda pool: pool.nodes_view())[0].state == "ready"
    agent.say(Report(seq=1, updates=report(("j1", 0, 0, 1)).updates))
    assert (await agent.hear(Ack)).forget == ("j1-0-0-1",)
    agent.hang_up()
    await agent.serving
    late = Agent(world.gateway)
    late.say(hello(sent_boottime_ms=150))
    assert "another link since" in (await late.hear(Refused)).message
    late.hang_up()
    await late.serving


async def test_nodes_of_a_leader_that_stops_are_told_to_look_for_the_next_one(tmp_path: Path) -> None:
    """And who comes to a server that does not lead makes it look who does."""
    async with led(tmp_path) as world:
        world.gateway._peers = others = Others()
        agent = await linked(world)
        world.leader.end()
        (told,) = [message for message in await agent.until_closed() if isinstance(message, Refused)]
        assert (told.message, told.retry_ms, told.servers) == ("no_leader", 70, others.urls())
        others.found = ("https://b:1", 3)
        late = Agent(world.gateway)
        late.say(hello())
        moved = await late.hear(Refused)
        assert (moved.message, moved.leader, moved.term) == ("moved", "https://b:1", 3)
