"""Attempts whose success waits until the server has what they wrote."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec import structs
from tests.unit.agent.moving.fake_server import JOB, FakeServer

from towline.agent.artifacts import Artifacts
from towline.agent.moving import uploads as uploading
from towline.agent.moving.copies import Copies
from towline.agent.moving.uploads import Uploads
from towline.core.commands import AttemptUpdate, attempt_id
from towline.wire.manifest import BLOB_BYTES

KEY = (JOB, 0, 3, 1)
NAME = attempt_id(KEY)
SUCCESS = AttemptUpdate(
    attempt=NAME, state="finished", reason="exited", exit_code=0, started_at=5, finished_at=9, cpu_ms=1
)


class Node:
    """What an agent has around its uploads."""

    def __init__(self, root: Path, server: FakeServer, holding: bool = True) -> None:
        self.server = server
        self.artifacts = Artifacts(root)
        self.copies = Copies(root, self.artifacts, "boot", 10**12)
        self.told: asyncio.Queue[AttemptUpdate] = asyncio.Queue()
        self.uploads = Uploads(self.artifacts, self.copies, server, self.told.put_nowait, holding)

    def write(self, content: bytes = b"hello", key: tuple[str, int, int, int] = KEY) -> AttemptUpdate:
        """Have an attempt succeed that wrote this; returns how it is told of."""
        job, task, index, number = key
        out = Path(self.artifacts.begin_task(job, task), f"{index}.{number}")
        out.mkdir()
        if content:
            (out / "x").write_bytes(content)
        return self.uploads.hold(self.artifacts.settle(structs.replace(SUCCESS, attempt=attempt_id(key))))

    async def hears(self) -> AttemptUpdate:
        async with asyncio.timeout(60):
            return await self.told.get()


@pytest_asyncio.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr(uploading, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(uploading, "LONGEST_PAUSE_S", 0.001)
    made = Node(tmp_path, FakeServer())
    made.uploads.welcomed(True)
    yield made
    made.uploads.close()


LARGE = os.urandom(1000) * (2 * BLOB_BYTES // 1000)
"""Blobs that differ."""


@pytest.mark.parametrize("content", [b"hello", LARGE])
async def test_a_success_is_told_once_it_is_at_the_server(node: Node, content: bytes) -> None:
    assert node.write(content) == AttemptUpdate(attempt=NAME, state="running", started_at=5)
    assert await node.hears() == SUCCESS
    manifest = node.server.keeping.manifest(KEY)
    assert manifest is not None
    at, read = 0, b""
    while at < len(content):
        read += node.server.keeping.read(KEY, manifest, at, len(content))
        at = len(read)
    assert read == content
    assert node.copies.holds(*KEY)


async def test_what_has_written_nothing_or_failed_is_told_at_once(node: Node) -> None:
    assert node.write(b"") == SUCCESS
    failed = structs.replace(SUCCESS, exit_code=1)
    assert node.uploads.hold(failed) == failed
    lost = structs.replace(SUCCESS, reason="oom_killed")
    assert node.uploads.hold(lost) == lost
    assert node.server.asked == []


async def test_an_older_attempts_tree_is_not_taken_for_a_newer_ones(node: Node) -> None:
    node.write(b"of the first")
    await node.hears()
    second = (*KEY[:3], 2)
    assert node.write(b"", second).state == "finished"
    assert node.server.keeping.written(JOB, 0) == {(3, 1)}


async def test_a_server_that_is_away_is_waited_for(node: Node) -> None:
    node.server.away = "no space left"
    assert node.write(LARGE).state == "running"
    while len(node.server.asked) < 5:  # noqa: ASYNC110 - a thread counts
        await asyncio.sleep(0.001)
    waits = await node.hears()
    assert node.told.empty(), "it is told once"
    assert (waits.state, waits.exit_code) == ("running", None)
    assert waits.message is not None
    assert waits.message.endswith("waits to be taken by the server: no space left")
    assert node.uploads.hold(SUCCESS) == waits  # as a supervisor that is back says again
    node.server.away = ""
    assert await node.hears() == SUCCESS


async def test_what_arrives_damaged_is_brought_again(node: Node) -> None:
    node.server.damages = 3
    node.write(LARGE)
    assert await node.hears() == SUCCESS
    assert node.server.keeping.kept(KEY).whole


async def test_what_always_arrives_damaged_is_no_success(node: Node) -> None:
    node.server.damages = 10**6
    node.write(LARGE)
    ended = await node.hears()
    assert (ended.state, ended.reason) == ("finished", "artifacts_failed")
    assert "damaged on its way" in (ended.message or "")


async def test_what_the_server_refuses_is_no_success(node: Node) -> None:
    node.server.refuses = "There is no attempt here."
    node.write()
    ended = await node.hears()
    assert ended.reason == "artifacts_failed"
    assert ended.message == (
        "What it wrote to TOW_OUT could not be brought to the server: There is no attempt here."
    )


async def test_the_next_agent_goes_on_with_what_is_there(node: Node, tmp_path: Path) -> None:
    """It finds the end in the journal again; blobs that have arrived do not leave a second time."""
    node.write(LARGE)
    await asyncio.to_thread(node.server.brought.wait, 60)
    node.uploads.close()
    server = FakeServer()
    server.keeping = node.server.keeping
    begun = set(server.keeping.kept(KEY).blobs)
    following = Node(tmp_path, server)
    assert following.uploads.hold(SUCCESS).state == "running"
    assert server.asked == []  # before a server has welcomed the node
    following.uploads.welcomed(True)
    assert await following.hears() == SUCCESS
    assert not begun & {asked.removeprefix("put ") for asked in server.asked}
    following.uploads.close()


async def test_what_is_at_the_server_by_this_boot_is_told_at_once(node: Node, tmp_path: Path) -> None:
    node.write()
    await node.hears()
    following = Node(tmp_path, node.server)
    assert following.uploads.hold(SUCCESS) == SUCCESS
    following.uploads.close()


async def test_one_that_is_stopped_meanwhile_ends_so(node: Node) -> None:
    node.server.away = "away"
    node.write()
    assert node.uploads.stop(NAME, "cancelled")
    ended = await node.hears()
    assert (ended.state, ended.reason) == ("finished", "cancelled")
    assert not node.uploads.stop(NAME, "cancelled")


async def test_a_server_that_takes_none_is_told_all(tmp_path: Path) -> None:
    node = Node(tmp_path, FakeServer())
    assert node.write().state == "running"
    node.uploads.welcomed(False)
    assert await node.hears() == SUCCESS
    assert node.uploads.hold(SUCCESS) == SUCCESS
    node.uploads.close()
