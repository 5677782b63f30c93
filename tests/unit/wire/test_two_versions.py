"""Agents and servers of two versions. ``version1.json`` holds what the encoder of version 1 has written, and
which fields its decoder cannot do without; it is never made anew."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from tests.builders import task
from tests.unit.agent.leader import listening
from tests.unit.agent.test_link import Agent as RealAgent
from tests.unit.server.conftest import submit_command
from tests.unit.server.test_gateway import Agent, World, led

from towline.errors import NodeError
from towline.wire import messages as wire
from towline.wire.pulls import Pulls
from towline.wire.usage import ReadUsage
from towline.wire.versions import OLDEST, VERSION, agreed, apart, has

RECORDED = json.loads(Path(__file__).with_name("version1.json").read_text())
HELLO, BACK, BEAT, RUNNING, FINISHED, *_ = (bytes.fromhex(text) for text in RECORDED["from_agent"])
WELCOME, _, ALIVE, ACK, TASK_INFO, PIN, START, *_ = (bytes.fromhex(text) for text in RECORDED["from_server"])


def tags(kinds: Any) -> list[str]:
    return [str(kind.__struct_config__.tag) for kind in kinds.__args__]


def assert_version_1_reads(frame: bytes) -> None:
    """Every message has a tag that it knows, and the fields that it wants."""
    for message in msgspec.msgpack.decode(frame):
        assert set(RECORDED["required"][message["type"]]) <= set(message), message


def test_the_newest_that_both_speak_is_spoken() -> None:
    assert VERSION - 1 >= OLDEST, "the version before is spoken as well"
    assert [agreed(1, 1), agreed(1, 2), agreed(2, 3), agreed(2, 9)] == [1, 2, 2, 2]
    assert agreed(3, 3) is None
    assert agreed(0, 0) is None
    assert apart("a", 3, 4, "b") == (
        "a speaks versions 3 to 4 of the agents' messages, and b versions 1 to 2: update b"
    )
    assert "update a" in apart("a", 0, 0, "b")


def test_messages_of_version_1_are_read_and_what_is_missing_has_its_default() -> None:
    for text in RECORDED["from_agent"]:
        assert len(wire.decode_from_agent(bytes.fromhex(text))) == 1
    for text in RECORDED["from_server"]:
        assert len(wire.decode_from_server(bytes.fromhex(text))) == 1
    (welcome,) = wire.decode_from_server(WELCOME)
    assert isinstance(welcome, wire.Welcome)
    assert (welcome.lease, welcome.log_window_bytes, welcome.heartbeat_ms) == (None, 0, 2_000)
    (hello,) = wire.decode_from_agent(HELLO)
    assert isinstance(hello, wire.Hello)
    assert (hello.version, hello.newest) == (1, 0)


def test_fields_that_are_not_known_are_passed_over() -> None:
    (known,) = msgspec.msgpack.decode(HELLO)
    frame = msgspec.msgpack.encode([{**known, "mood": {"good": True}}])
    assert wire.decode_from_agent(frame) == wire.decode_from_agent(HELLO)


def test_every_message_is_of_version_1_or_recorded_in_it_as_missing() -> None:
    first = {tag for tag in tags(wire.FromAgent) + tags(wire.FromServer) if tag in RECORDED["required"]}
    for kind in (*wire.FromAgent.__args__, *wire.FromServer.__args__):
        assert has(1, kind) == (kind.__struct_config__.tag in first)
        assert has(VERSION, kind)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with led(tmp_path) as made:
        yield made


class OldAgent(Agent):
    """Says recorded frames, and reads as version 1 did."""

    async def send(self, frame: bytes) -> None:
        assert_version_1_reads(frame)
        await super().send(frame)

    def say_bytes(self, frame: bytes) -> None:
        self._out.put_nowait(frame)


async def test_an_agent_of_version_1_runs_a_job_for_this_server(world: World) -> None:
    agent = OldAgent(world.gateway)
    agent.say_bytes(HELLO)
    assert (await agent.hear(wire.Welcome)).version == 1
    await world.leader.ask(submit_command("j1", a=task()))
    await agent.hear(wire.Start)
    agent.say_bytes(BEAT)
    await agent.hear(wire.HeartbeatAnswer)
    agent.say_bytes(RUNNING)
    agent.say_bytes(FINISHED)
    while (await agent.hear(wire.Ack)).seq != 2:
        pass
    assert world.leader.opinion(lambda pool: pool.unfinished_jobs) == 0
    # What it cannot do is said at once, and never sent.
    with pytest.raises(NodeError, match=r"speaks version 1 .* update Towline on that node"):
        world.gateway.exec_open("n1", "j1-0-0-1", None)  # type: ignore[arg-type]
    ((_, _, answer),) = await world.gateway.read_usage(ReadUsage(request=0))
    assert "speaks version 1" in (answer.error or "")
    agent.hang_up()
    await agent.serving


@pytest.mark.parametrize(("version", "newest", "older"), [(0, 0, "the agent"), (3, 4, "the server")])
async def test_an_agent_too_far_away_is_told_both_versions(
    world: World, version: int, newest: int, older: str
) -> None:
    with structlog.testing.capture_logs() as logged:
        agent = Agent(world.gateway)
        (hello,) = wire.decode_from_agent(HELLO)
        agent.say(msgspec.structs.replace(hello, version=version, newest=newest))
        refused = await agent.hear(wire.Refused)
    assert refused.retry_ms is None
    theirs = "version 0" if newest == 0 else "versions 3 to 4"
    for text in (refused.message, *(entry["reason"] for entry in logged if "reason" in entry)):
        assert theirs in text
        assert "versions 1 to 2" in text
        assert f"update {older}" in text
    assert any(entry["event"] == "an agent is refused" for entry in logged)
    await agent.serving


async def test_a_cluster_takes_no_agent_that_keeps_no_lease(tmp_path: Path) -> None:
    world = World(tmp_path, listen="127.0.0.1:7443")
    agent = OldAgent(world.gateway)
    agent.say_bytes(HELLO)
    refused = await agent.hear(wire.Refused)
    assert "speaks version 1 of the agents' messages, and the server version 2" in refused.message
    await agent.serving


async def test_this_agent_runs_an_attempt_for_a_server_of_version_1(tmp_path: Path) -> None:
    async with listening(tmp_path / "tow.sock") as leader:
        agent = RealAgent(tmp_path)
        agent.supervised()
        try:
            async with asyncio.timeout(30):
                line = await leader.accept()
                hello = await line.hear(wire.Hello)
                assert (hello.version, hello.newest) == (1, VERSION)
                for frame in (WELCOME, ACK, TASK_INFO, PIN, START):
                    await line.say_bytes(frame)
                (plan,) = await agent.supervisor.plans()
                assert plan.attempt == "j1-0-0-1"
                agent.link.say(Pulls(pulls=()))  # which version 1 does not know
                agent.link.say(wire.Heartbeat(sent_boottime_ms=5))
                while (await line.hear(wire.Heartbeat)).sent_boottime_ms != 5:
                    pass
                assert not [message for message in line._unread if isinstance(message, Pulls)]
        finally:
            agent.running.cancel()
            await asyncio.gather(agent.running, return_exceptions=True)


async def test_this_agent_ends_where_a_server_is_too_far_away(tmp_path: Path) -> None:
    async with listening(tmp_path / "tow.sock") as leader:
        agent = RealAgent(tmp_path)
        agent.supervised()
        async with asyncio.timeout(30):
            line = await leader.accept()
            await line.hear(wire.Hello)
            await line.say(wire.Welcome(version=3, build="b", term=1))
            reason = await agent.running
    assert reason.startswith("the server speaks version 3 of the agents' messages")
    assert reason.endswith("and this agent versions 1 to 2: update this agent")
