"""One further command as its client sees it: what is said in which order, and who waits for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from towline.agent.exec import session
from towline.agent.exec.inside import Broken, Ended, Send
from towline.agent.exec.session import FromSession, Session
from towline.runtime.port import CannotExec
from towline.wire.exec import (
    CHUNK_BYTES,
    WINDOW_BYTES,
    Credit,
    Data,
    Eof,
    Exit,
    Refused,
    Resize,
    Signal,
    Started,
)


class Command:
    """An ``Inside`` whose program is a test: it writes ``output``, and takes input while ``reads``."""

    def __init__(self, output: list[tuple[int, bytes]] | None = None) -> None:
        self.output = output or []
        self.written = 0
        self.taken = b""
        self.reads = asyncio.Event()
        self.reads.set()
        self.closed_input = False
        self.over = asyncio.Event()
        self.ended = Ended(code=0)
        self.cannot: Exception | None = None
        self.breaks = False
        self.did: list[object] = []

    async def start(self) -> None:
        if self.cannot is not None:
            raise self.cannot

    async def copy_out(self, send: Send) -> None:
        for stream, data in self.output:
            await send(stream, data)
            self.written += len(data)
        await self.over.wait()

    async def write(self, data: bytes) -> None:
        await self.reads.wait()
        if self.closed_input:
            raise BrokenPipeError
        self.taken += data

    async def end_input(self) -> None:
        self.did.append("end")

    def resize(self, rows: int, columns: int) -> None:
        self.did.append((rows, columns))

    def signal(self, number: int) -> None:
        self.did.append(number)

    async def wait(self) -> Ended:
        await self.over.wait()
        if self.breaks:
            raise Broken("the engine has gone")
        return self.ended

    async def kill(self) -> None:
        self.did.append("kill")
        self.ended = Ended(signal=9)
        self.over.set()

    async def close(self) -> None:
        self.did.append("close")


class Client:
    def __init__(self, command: Command, runs: bool = True) -> None:
        self.said: list[FromSession] = []
        self._news = asyncio.Event()
        self.runs = runs
        self.session = Session("job-0-0-1", command, self._hear, self._still_runs)
        self.running = asyncio.create_task(self.session.run())

    def _hear(self, message: FromSession) -> None:
        self.said.append(message)
        self._news.set()

    async def _still_runs(self) -> bool:
        return self.runs

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self._news.clear()
                await asyncio.wait([asyncio.create_task(self._news.wait())], timeout=0.01)

    def output(self) -> int:
        return sum(len(message.data) for message in self.said if isinstance(message, Data))


async def test_a_command_starts_writes_and_ends_in_that_order() -> None:
    command = Command([(1, b"out"), (2, b"err")])
    client = Client(command)
    await client.until(lambda: len(client.said) == 3)
    command.ended = Ended(code=7)
    command.over.set()
    await client.running
    assert client.said == [Started("job-0-0-1"), Data(1, b"out"), Data(2, b"err"), Exit(code=7)]
    assert command.did == ["close"]


async def test_a_flood_waits_at_its_source_until_it_is_written_out() -> None:
    command = Command([(1, bytes(CHUNK_BYTES))] * 100)
    client = Client(command)
    await client.until(lambda: client.output() == WINDOW_BYTES)
    await asyncio.sleep(0)
    assert client.output() == WINDOW_BYTES
    client.session.hear(Credit(CHUNK_BYTES))
    await client.until(lambda: client.output() == WINDOW_BYTES + CHUNK_BYTES)
    assert command.written <= client.output()
    client.running.cancel()


async def test_input_that_is_not_read_is_not_given_back() -> None:
    command = Command()
    command.reads.clear()
    client = Client(command)
    for _ in range(WINDOW_BYTES // CHUNK_BYTES):
        client.session.hear(Data(0, bytes(CHUNK_BYTES)))
    await asyncio.sleep(0)
    with pytest.raises(ValueError, match="were sent where 0 are allowed"):
        client.session.hear(Data(0, b"x"))
    assert not [said for said in client.said if isinstance(said, Credit)]
    command.reads.set()
    await client.until(lambda: sum(s.count for s in client.said if isinstance(s, Credit)) == WINDOW_BYTES)
    client.session.hear(Eof())
    await client.until(lambda: "end" in command.did)
    assert len(command.taken) == WINDOW_BYTES
    client.running.cancel()


async def test_input_that_nobody_reads_any_more_goes_nowhere_and_stops_nobody() -> None:
    command = Command()
    command.closed_input = True
    client = Client(command)
    for _ in range(4):
        for _ in range(WINDOW_BYTES // CHUNK_BYTES):
            client.session.hear(Data(0, bytes(CHUNK_BYTES)))
        given = sum(said.count for said in client.said if isinstance(said, Credit)) + WINDOW_BYTES
        await client.until(
            lambda given=given: sum(s.count for s in client.said if isinstance(s, Credit)) == given
        )
    client.running.cancel()


async def test_size_and_signals_reach_it_and_unknown_ones_do_not() -> None:
    command = Command()
    client = Client(command)
    client.session.hear(Resize(3, 4))
    client.session.hear(Signal("INT"))
    assert command.did == [(3, 4), 2]
    with pytest.raises(ValueError, match="'KILL' is no signal to pass on"):
        client.session.hear(Signal("KILL"))
    client.running.cancel()


async def test_what_cannot_be_started_is_refused_with_the_shells_status() -> None:
    command = Command()
    command.cannot = CannotExec("there is no such program", 127)
    client = Client(command)
    await client.running
    assert client.said == [Refused(kind="cannot_start", message="there is no such program", status=127)]
    assert command.did == ["close"]


async def test_what_cannot_be_started_because_the_attempt_has_ended_says_that() -> None:
    command = Command()
    command.cannot = CannotExec("container not running", 126)
    client = Client(command, runs=False)
    await client.running
    assert client.said == [Refused(kind="request", message="The attempt has ended.")]


async def test_the_attempts_end_ends_it_and_is_told() -> None:
    command = Command()
    client = Client(command)
    await client.until(lambda: bool(client.said))
    client.session.attempt_ended()
    await client.running
    assert client.said[-1] == Exit(signal=9, attempt_ended=True)
    assert command.did == ["kill", "close"]


@pytest.mark.parametrize(("runs", "ended"), [(True, False), (False, True)])
async def test_a_kill_is_the_attempts_end_only_if_that_ends(
    runs: bool, ended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_LOOKS_S", (0.0, 0.0))
    command = Command()
    command.ended = Ended(code=137)
    client = Client(command, runs)
    command.over.set()
    await client.running
    assert client.said[-1] == Exit(code=137, attempt_ended=ended)


async def test_the_attempts_end_may_be_seen_a_little_after_the_kill() -> None:
    command = Command()
    command.ended = Ended(code=137)
    client = Client(command)
    command.over.set()
    asyncio.get_running_loop().call_later(0.01, client.session.attempt_ended)
    await client.running
    assert client.said[-1] == Exit(code=137, attempt_ended=True)


async def test_a_broken_engine_is_told_of() -> None:
    command = Command()
    command.breaks = True
    client = Client(command)
    command.over.set()
    await client.running
    assert client.said[-1] == Refused(kind="failed", message="the engine has gone")
    assert command.did[-1] == "close"


async def test_a_client_that_goes_takes_the_command_with_it() -> None:
    command = Command([(1, bytes(CHUNK_BYTES))] * 100)
    client = Client(command)
    await client.until(lambda: client.output() == WINDOW_BYTES)
    client.running.cancel()
    await asyncio.wait([client.running])
    assert command.did == ["close"]
    assert not [said for said in client.said if isinstance(said, Exit)]
