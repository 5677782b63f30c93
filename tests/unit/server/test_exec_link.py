"""What further commands are told on an agent's link: after all else, in small frames, and not for ever."""

from __future__ import annotations

import asyncio

import pytest

from towline.errors import Unavailable
from towline.server.link import Link
from towline.wire.exec import CHUNK_BYTES, Data, ExecClose, ExecOpen, ExecSaid, ExecSay, Exit, Open, Started
from towline.wire.messages import FromServer, HeartbeatAnswer, decode_from_server

OPEN = Open(argv=("true",))
ALIVE = HeartbeatAnswer(term=1, sent_boottime_ms=5)


class SlowSocket:
    """Takes a frame whenever the test says so."""

    def __init__(self) -> None:
        self.frames: list[list[FromServer]] = []
        self.turns = asyncio.Semaphore(0)
        self.taken = asyncio.Semaphore(0)

    async def send(self, frame: bytes) -> None:
        self.frames.append(decode_from_server(frame))
        self.taken.release()
        await self.turns.acquire()

    async def close(self) -> None:
        self.taken.release()

    async def next(self) -> list[FromServer]:
        if self.frames:
            self.turns.release()
        await self.taken.acquire()
        return self.frames[-1]


async def test_a_flood_of_input_does_not_delay_what_is_urgent() -> None:
    socket = SlowSocket()
    link = Link("node1", "vm", "journal", socket)
    writing = asyncio.create_task(link.write())
    name, _ = link.exec_open("job-0-0-1", OPEN)
    flood = [Data(0, bytes(CHUNK_BYTES)) for _ in range(16)]
    for data in flood:
        link.exec_say(name, data)
    assert await socket.next() == [ExecOpen(exec=name, attempt="job-0-0-1", open=OPEN)]
    assert await socket.next() == [ExecSay(exec=name, said=flood[0])]
    link.say(ALIVE)
    assert await socket.next() == [ALIVE]
    for data in flood[1:]:
        assert await socket.next() == [ExecSay(exec=name, said=data)]
    link.exec_close(name)
    assert await socket.next() == [ExecClose(exec=name)]
    writing.cancel()


async def test_its_words_go_to_whom_they_are_for_until_he_has_gone() -> None:
    link = Link("node1", "vm", "journal", SlowSocket())
    first, said = link.exec_open("job-0-0-1", OPEN)
    second, other = link.exec_open("job-0-1-1", OPEN)
    link.exec_said(ExecSaid(exec=first, said=Started("job-0-0-1")))
    link.exec_said(ExecSaid(exec=second, said=Exit(code=0)))
    assert said.get_nowait() == Started("job-0-0-1")
    assert other.get_nowait() == Exit(code=0)
    link.exec_close(first)
    link.exec_said(ExecSaid(exec=first, said=Exit(code=0)))
    assert said.empty()
    link.gone()
    assert other.get_nowait() is None
    with pytest.raises(Unavailable, match="is not connected"):
        link.exec_open("job-0-0-1", OPEN)
