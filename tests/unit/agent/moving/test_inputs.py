"""Inputs from other nodes: whole before an attempt starts, fetched once, and let go of where too much."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.unit.agent.moving.fake_server import JOB, FakeServer

from towline.agent.artifacts import Artifacts
from towline.agent.moving import inputs as fetching
from towline.agent.moving.copies import Copies
from towline.agent.moving.inputs import Inputs
from towline.agent.prepare import Template, Unprepared
from towline.core.agent.eviction import Pins
from towline.core.commands import AttemptKey, attempt_id
from towline.model.job import Array, Need, TaskSpec
from towline.wire.artifacts import FILE, Artifact
from towline.wire.manifest import BLOB_BYTES, INLINE_BYTES, Manifest, digest_of, encode
from towline.wire.messages import TaskInfo

LARGE = os.urandom(1000) * (3 * BLOB_BYTES // 1000)


class Node:
    def __init__(self, root: Path, most_bytes: int = 10**12, boot: str = "boot") -> None:
        self.root = root
        self.server = FakeServer()
        self.artifacts = Artifacts(root)
        self.copies = Copies(root, self.artifacts, boot, most_bytes)
        self.pins = Pins()
        self.inputs = Inputs(self.artifacts, self.copies, self.server, lambda: self.pins)

    def has(self, index: int, content: bytes, number: int = 1) -> None:
        """The server has what attempt ``number`` of element ``index`` wrote: a file ``x``."""
        key: AttemptKey = (JOB, 0, index, number)
        entry = Artifact(path="x", kind=FILE, size_bytes=len(content), modified_ms=0, mode=0o644)
        blobs = [content[at : at + BLOB_BYTES] for at in range(0, len(content), BLOB_BYTES)]
        inline = content if len(content) <= INLINE_BYTES else b""
        if inline:
            blobs = []
        for blob in blobs:
            self.server.keeping.put_blob(key, digest_of(blob).hex(), blob)
        digests = tuple(map(digest_of, blobs))
        manifest = Manifest(entries=(entry,), size_bytes=len(content), blobs=digests, inline=inline)
        self.server.keeping.finish(key, encode(manifest))
        self.server.numbers[index] = number

    def left_behind(self, index: int) -> None:
        """Attempt 1 of an element wrote something here."""
        out = Path(self.artifacts.begin_task(JOB, 0), f"{index}.1")
        out.mkdir()
        (out / "x").write_text("of the lost attempt")
        self.artifacts.place(str(out), JOB, 0, index, 1)
        self.copies.note(JOB, 0, index, 1, 10)

    def paths(self, index: int) -> list[Path]:
        return list((self.root / JOB / "0" / str(index)).iterdir())

    def read(self, index: int) -> bytes:
        return (self.root / JOB / "0" / str(index) / "x").read_bytes()

    async def ready(self, template: Template, index: int = 0) -> None:
        async with asyncio.timeout(60):
            await self.inputs.ready(template, attempt_id((JOB, 1, index, 1)), index)


def template(array: int = 0, each: bool = False) -> Template:
    """Of a task that has task ``make`` as input, an array or a single element."""
    spec: dict[str, Any] = {"inputs": {"make": "in"}, "needs": (Need(task="make", each=each),)}
    if each:
        spec["array"] = Array(last=array - 1)
    return Template(
        TaskInfo(
            job=JOB,
            task=1,
            job_name="j",
            task_name="use",
            spec=TaskSpec(runtime="process", command=("true",), **spec),
            base_dir=None,
            input_tasks={"make": (0, 0, max(0, array - 1), bool(array))},
        )
    )


@pytest_asyncio.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr(fetching, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(fetching, "LONGEST_PAUSE_S", 0.001)
    made = Node(tmp_path)
    yield made
    made.inputs.close()


@pytest.mark.parametrize("content", [b"hello", LARGE])
async def test_an_input_is_there_and_is_fetched_once(node: Node, content: bytes) -> None:
    node.has(0, content)
    await asyncio.gather(*(node.ready(template(), index) for index in range(5)))
    assert node.read(0) == content
    assert node.server.asked.count("manifest 0") == 1
    before = list(node.server.asked)
    await node.ready(template())
    assert node.server.asked == before


async def test_an_array_is_there_with_those_that_wrote_something(node: Node) -> None:
    for index in (0, 2):
        node.has(index, b"%d" % index)
    await node.ready(template(array=3))
    assert [node.read(index) for index in (0, 2)] == [b"0", b"2"]


async def test_each_gets_the_element_in_its_place(node: Node) -> None:
    for index in range(3):
        node.has(index, b"%d" % index)
    await node.ready(template(array=3, each=True), 1)
    assert node.read(1) == b"1"
    assert not (node.root / JOB / "0/0").exists()


async def test_elements_that_several_inputs_want_at_once_are_fetched_once(node: Node) -> None:
    """All of an array by one task, each of it by the elements of another one."""
    for index in range(3):
        node.has(index, b"%d" % index * 70_000)
    await asyncio.gather(
        node.ready(template(array=3)),
        *(node.ready(template(array=3, each=True), index) for index in range(3)),
    )
    assert [node.read(index) for index in range(3)] == [b"%d" % index * 70_000 for index in range(3)]
    assert [node.server.asked.count(f"manifest {index}") for index in range(3)] == [1, 1, 1]


async def test_what_an_older_attempt_left_here_is_replaced_or_goes(node: Node) -> None:
    for index in (0, 1):
        node.left_behind(index)
    node.has(0, b"of the second", number=2)
    await node.ready(template(array=2))
    assert node.read(0) == b"of the second"
    assert node.paths(1) == []


async def test_a_copy_of_before_a_boot_is_fetched_again(node: Node, tmp_path: Path) -> None:
    node.has(0, b"hello")
    await node.ready(template())
    (node.root / JOB / "0/0/x").write_bytes(b"torn!")
    rebooted = Node(tmp_path, boot="another")
    rebooted.server = node.server
    rebooted.inputs = Inputs(rebooted.artifacts, rebooted.copies, node.server, Pins)
    await rebooted.ready(template())
    assert node.read(0) == b"hello"
    rebooted.inputs.close()


async def test_a_server_that_is_away_is_waited_for(node: Node) -> None:
    node.has(0, LARGE)
    node.server.away = "away"
    coming = asyncio.create_task(node.ready(template()))
    while len(node.server.asked) < 5:  # noqa: ASYNC110 - a thread counts
        await asyncio.sleep(0.001)
    node.server.away = ""
    await coming
    assert node.read(0) == LARGE


async def test_what_comes_damaged_is_fetched_again_and_never_shown(node: Node) -> None:
    node.has(0, LARGE)
    node.server.damages = 3
    await node.ready(template())
    assert node.read(0) == LARGE


async def test_what_always_comes_damaged_is_told(node: Node) -> None:
    node.has(0, LARGE)
    node.server.damages = 10**6
    with pytest.raises(Unprepared, match="they come damaged") as told:
        await node.ready(template())
    assert told.value.reason == "artifacts_failed"
    assert not (node.root / JOB / "0/0").exists()


async def test_what_the_server_refuses_is_told(node: Node) -> None:
    node.server.refuses = "There is no attempt here."
    with pytest.raises(Unprepared, match="Its input 'make' could not be brought"):
        await node.ready(template())


async def test_one_that_is_gone_while_it_fetches_for_others_fails_alone(node: Node) -> None:
    node.has(0, b"hello")
    node.server.unknown = {attempt_id((JOB, 1, 0, 1))}
    both = [node.ready(template(), index) for index in (0, 1)]
    gone, there = await asyncio.gather(*both, return_exceptions=True)
    assert isinstance(gone, Unprepared)
    assert there is None
    assert node.read(0) == b"hello"


async def test_copies_make_room_but_not_those_that_are_needed(tmp_path: Path) -> None:
    node = Node(tmp_path, most_bytes=250)
    for index in range(4):
        node.has(index, b"%d" % index * 100)
    each = template(array=4, each=True)
    for index in range(3):
        await node.ready(each, index)
    assert not (tmp_path / JOB / "0/0").exists()
    assert node.read(2) == b"2" * 100
    node.pins = Pins({(JOB, 0)})
    await node.ready(each, 3)
    assert node.read(2) == b"2" * 100
    await node.ready(each, 0)  # which had to go, and is needed again
    assert node.read(0) == b"0" * 100
    node.inputs.close()


async def test_a_full_disk_is_told_when_no_copy_can_go(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    node.has(0, b"hello")
    monkeypatch.setattr(fetching, "lay", full)
    with pytest.raises(Unprepared, match="no space left on the node's disk") as told:
        await node.ready(template())
    assert told.value.reason == "disk_full"


def test_what_was_not_fetched_whole_goes_at_the_next_start(tmp_path: Path) -> None:
    copies = Copies(tmp_path, Artifacts(tmp_path), "boot", 10**12)
    half = Path(copies.staging(JOB, 0, 0, 1))
    (half / "x").write_text("half")
    copies.sweep()
    assert not half.exists()
