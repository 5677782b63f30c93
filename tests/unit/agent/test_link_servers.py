"""The link where there are several servers: whom it asks, and whose word counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio
from tests.unit.agent.leader import Leader, listening
from tests.unit.agent.test_link import IDENTITY, Agent
from websockets.asyncio.client import ClientConnection, unix_connect

from towline.agent.cluster.dialing import PATH
from towline.agent.cluster.servers import Servers
from towline.agent.link import Link
from towline.wire import messages as wire

ONE, TWO = "https://one", "https://two"


class Node(Agent):
    """An agent that knows two servers, each on a socket of its name."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.running.cancel()
        self.servers = Servers(ONE, told=(TWO,))
        output = str(home / "output")
        self.link = Link(self._dial, IDENTITY, output, self.executor, self.must_end, servers=self.servers)
        self.executor.attach(self.link, self.supervisor)
        self.running = asyncio.create_task(self.link.run(self.journal_read))

    async def _dial(self, **options: Any) -> ClientConnection:
        url = self.servers.next()
        name = url.removeprefix("https://")
        try:
            return await unix_connect(str(self.home / name), f"ws://{name}{PATH}", **options)
        except OSError:
            self.servers.failed(url)
            raise


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(tmp_path)
    made.supervised()
    yield made
    made.running.cancel()
    await asyncio.gather(made.running, return_exceptions=True)
    made.executor.close()


async def _leader(home: Path, name: str) -> AsyncIterator[Leader]:
    async with listening(home / name) as leader:
        yield leader


@pytest_asyncio.fixture
async def one(tmp_path: Path) -> AsyncIterator[Leader]:
    async for leader in _leader(tmp_path, "one"):
        yield leader


@pytest_asyncio.fixture
async def two(tmp_path: Path) -> AsyncIterator[Leader]:
    async for leader in _leader(tmp_path, "two"):
        yield leader


async def test_it_goes_where_it_is_sent(one: Leader, two: Leader, node: Node) -> None:
    line = await one.accept()
    await line.hear(wire.Hello)
    moved = wire.Refused(
        message="moved", retry_ms=600_000, leader=TWO, term=4, servers=(TWO, ONE, "https://x")
    )
    await line.say(moved)
    line = await two.accept()
    await line.welcome(term=4)
    await line.hear(wire.Heartbeat)
    assert node.servers.current == TWO
    assert "https://x" in node.servers.all


async def test_a_server_that_is_away_is_passed_over(two: Leader, node: Node) -> None:
    line = await two.accept()
    await line.welcome()
    await line.hear(wire.Heartbeat)
    assert node.servers.current == TWO


async def test_who_points_to_an_older_term_is_not_followed(one: Leader, two: Leader, node: Node) -> None:
    line = await one.accept()
    await line.welcome(term=7)
    await line.hear(wire.Heartbeat)
    await line.say(wire.Refused(message="moved", retry_ms=0, leader=TWO, term=6))
    line = await one.accept()  # the last leader is asked first
    await line.hear(wire.Hello)


async def test_a_leader_of_an_older_term_is_left(one: Leader, two: Leader, node: Node) -> None:
    line = await one.accept()
    await line.welcome(term=7)
    await line.hear(wire.Heartbeat)
    await line.close()
    line = await one.accept()
    await line.welcome(term=6)
    line = await two.accept()  # in its turn
    await line.welcome(term=8)
    await line.hear(wire.Heartbeat)
    assert node.machine.term == 8 and node.servers.current == TWO
