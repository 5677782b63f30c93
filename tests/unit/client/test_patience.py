"""What a user hears while a request waits for a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.client.canned import Canned, answer, job_view

from towline.client import Client
from towline.client.cluster import patience

JOBS = answer({"jobs": [], "next_cursor": None})


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "TELL_AFTER_S", 0.1)


async def test_it_is_said_once_that_a_server_is_waited_for(closed_socket: Callable[[], Path]) -> None:
    server = Canned(closed_socket())
    server.answers = [JOBS, JOBS]
    left: list[float] = []
    told = asyncio.Event()

    def waiting(left_s: float) -> None:
        left.append(left_s)
        told.set()

    async with Client(server.path, waiting=waiting) as client, asyncio.timeout(30):
        both = asyncio.gather(client.jobs(), client.jobs())
        await told.wait()
        server.path.unlink()
        await server.start()
        await both
    await server.stop()
    assert len(left) == 1
    assert 0 < left[0] < 30


async def test_a_server_that_is_not_ready_is_waited_for_as_well(canned: Canned) -> None:
    busy = answer({"title": "Not now", "status": 503}, 503, retry_after="0.3")
    canned.answers = [busy, busy, JOBS]
    left: list[float] = []
    async with Client(canned.path, waiting=left.append) as client:
        await client.jobs()
    assert len(left) == 1


async def test_an_answer_may_take_its_time(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.5)
        writer.write(answer(job_view()))
        writer.close()

    left: list[float] = []
    server = await asyncio.start_unix_server(serve, tmp_path / "s")
    async with server, Client(tmp_path / "s", waiting=left.append) as client:
        await client.job("job1")
    assert left == []


async def test_it_is_said_when_a_server_goes_that_has_taken_its_time(tmp_path: Path) -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if len(asked) == 1:
            await asyncio.sleep(0.5)
        else:
            writer.write(answer(job_view()))
        writer.close()

    left: list[float] = []
    server = await asyncio.start_unix_server(serve, tmp_path / "s")
    async with server, Client(tmp_path / "s", waiting=left.append) as client:
        await client.job("job1")
    assert len(left) == 1
