"""A further command between its client and its node: what is passed on, what is refused, who is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from towline.server.api.exec import Relay
from towline.server.link import Further, Link
from towline.wire.exec import (
    CHUNK_BYTES,
    WINDOW_BYTES,
    Credit,
    Data,
    Eof,
    ExecClose,
    ExecOpen,
    ExecSay,
    Exit,
    FromClient,
    FromCommand,
    Open,
    Refused,
    Started,
    decode_from_command,
    encode,
)
from towline.wire.messages import decode_from_server

OPEN = Open(argv=("true",))


class Node:
    """The socket of its link: what was said to it."""

    def __init__(self, news: asyncio.Event) -> None:
        self.heard: list[object] = []
        self._news = news

    async def send(self, frame: bytes) -> None:
        self.heard += decode_from_server(frame)
        self._news.set()

    async def close(self) -> None:
        return None


class Peer:
    """A client's WebSocket; ``say(None)`` ends it."""

    def __init__(self, news: asyncio.Event) -> None:
        self.heard: list[FromCommand] = []
        self._news = news
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue()

    def say(self, *messages: FromClient) -> None:
        self._frames.put_nowait(encode(messages))

    def go(self) -> None:
        self._frames.put_nowait(None)

    async def frames(self) -> AsyncIterator[bytes]:
        while (frame := await self._frames.get()) is not None:
            yield frame

    async def send(self, frame: bytes) -> None:
        self.heard += decode_from_command(frame)
        self._news.set()


class Between:
    def __init__(self) -> None:
        self._news = asyncio.Event()
        self.node, self.peer = Node(self._news), Peer(self._news)
        self.link = Link("node1", "vm", "journal", self.node)
        self.writing = asyncio.create_task(self.link.write())
        self.name, self.said = self.link.exec_open("job-0-0-1", OPEN)
        relay = Relay(self.link, self.name, self.said)
        self.running = asyncio.create_task(relay.run(self.peer, self.peer.frames()))  # type: ignore[arg-type]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def end(self) -> list[object]:
        """What the node has heard, once the relay has ended."""
        await asyncio.wait_for(self.running, 5)
        await self.until(lambda: ExecClose(exec=self.name) in self.node.heard)
        self.writing.cancel()
        return self.node.heard


@pytest.fixture
async def between() -> Between:
    return Between()


def told(said: Further, *messages: FromCommand) -> None:
    for message in messages:
        said.put_nowait(message)


async def test_everything_is_passed_on_until_the_end(between: Between) -> None:
    between.peer.say(Data(0, b"in"), Eof())
    told(between.said, Started("job-0-0-1"), Data(1, b"out"), Data(2, b"err"))
    await between.until(lambda: len(between.peer.heard) == 3 and len(between.node.heard) == 3)
    told(between.said, Exit(code=3))
    name = between.name
    assert await between.end() == [
        ExecOpen(exec=name, attempt="job-0-0-1", open=OPEN), ExecSay(exec=name, said=Data(0, b"in")),
        ExecSay(exec=name, said=Eof()), ExecClose(exec=name),
    ]  # fmt: skip
    assert between.peer.heard == [Started("job-0-0-1"), Data(1, b"out"), Data(2, b"err"), Exit(code=3)]


async def test_a_client_that_has_gone_closes_it(between: Between) -> None:
    between.peer.go()
    assert (await between.end())[-1] == ExecClose(exec=between.name)
    assert between.peer.heard == []


async def test_a_node_that_has_gone_is_told_of(between: Between) -> None:
    between.link.gone()
    await between.end()
    (refused,) = between.peer.heard
    assert isinstance(refused, Refused)
    assert refused.kind == "unavailable"
    assert "node vm is lost" in refused.message


@pytest.mark.parametrize(
    "messages",
    [
        [Data(0, bytes(CHUNK_BYTES))] * (WINDOW_BYTES // CHUNK_BYTES + 1),
        [Credit(1)],
        [OPEN],
    ],
)
async def test_who_breaks_the_protocol_is_told_and_closed(
    between: Between, messages: list[FromClient]
) -> None:
    for message in messages:
        between.peer.say(message)
    assert (await between.end())[-1] == ExecClose(exec=between.name)
    refused = between.peer.heard[-1]
    assert isinstance(refused, Refused)
    assert refused.message.startswith("The client broke the protocol: ")
