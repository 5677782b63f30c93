"""Output that nodes ship to a server over TLS: nothing twice and nothing missing, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_asyncio
from tests.integration.cluster.cluster_server import ClusterServer
from tests.integration.cluster.heard import heard
from tests.integration.cluster.node_process import NodeProcess
from tests.integration.server_process import PATIENCE_S, job
from tests.segments import kept_bytes
from websockets.asyncio.client import ClientConnection, connect

from towline.agent.cluster.membership import Membership, join
from towline.identity.joining import parse_join
from towline.wire.messages import (
    VERSION,
    FromAgent,
    Hello,
    Start,
    Welcome,
    encode,
)
from towline.wire.shipping import PART_BYTES, LogAck, LogOpen, LogPart

M = TypeVar("M")

FLOOD = """
import os, sys, time
for first, end, gate in {parts}:
    while gate and not os.path.exists(gate):
        time.sleep(0.01)
    for number in range(first, end):
        sys.stdout.write("%0999d\\n" % number)
    sys.stdout.flush()
"""
"""Prints numbered lines of 1000 bytes in parts: (first, end, file that has to be there before)."""


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[ClusterServer]:
    """One for all of these: it takes longer to start than any of them."""
    home = Path(tempfile.mkdtemp(prefix="tow-"))
    made = ClusterServer(home)
    try:
        await made.start()
        yield made
    finally:
        await made.close()
        shutil.rmtree(home)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(cluster: ClusterServer) -> AsyncIterator[NodeProcess]:
    made = NodeProcess(cluster, "n1")
    try:
        await made.start()
        yield made
    finally:
        made.close()


def lines(first: int, end: int) -> bytes:
    return b"".join(b"%0999d\n" % number for number in range(first, end))


async def flooding(cluster: ClusterServer, *parts: tuple[int, int, str]) -> str:
    return await submitted(cluster, [sys.executable, "-c", FLOOD.format(parts=list(parts))])


async def submitted(cluster: ClusterServer, command: list[str], **fields: Any) -> str:
    answer = await cluster.submit(job(a={"command": command, **fields}))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def output(cluster: ClusterServer, name: str, **query: Any) -> tuple[bytes, list[str]]:
    """What is shown of the only element's stdout, and the notes."""
    text = await cluster.http.get(f"/v1/jobs/{name}/tasks/a/elements/0/logs", params=query)
    assert text.status_code == 200, text.text
    said = [json.loads(line) for line in text.text.splitlines()]
    data = b"".join(b64decode(line["data"]) for line in said if line["stream"] == "stdout")
    return data, [line["note"] for line in said if "note" in line]


async def until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - nobody tells us
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what}") from None


async def wait(cluster: ClusterServer, name: str) -> None:
    await cluster.get(f"/v1/jobs/{name}/wait", timeout_s=PATIENCE_S)


async def all_shipped(node: NodeProcess, name: str) -> None:
    await until(lambda: not node.output(f"{name}-0-0-1").exists(), "the node to drop its copy")


async def test_output_is_on_the_server_and_leaves_the_node(cluster: ClusterServer, node: NodeProcess) -> None:
    name = await submitted(cluster, ["sh", "-c", "echo 1; echo 2; echo err >&2"])
    await wait(cluster, name)
    await all_shipped(node, name)
    assert await output(cluster, name) == (b"1\n2\n", [])
    assert await output(cluster, name, tail=1, stream="stdout", follow=True) == (b"2\n", [])


async def test_an_attempt_that_never_started_says_why(cluster: ClusterServer, node: NodeProcess) -> None:
    name = await submitted(cluster, ["/no/such/program"])
    await wait(cluster, name)
    data, (note,) = await output(cluster, name, follow=True)
    assert data == b""
    assert note.startswith("It never started on node n1: ")
    assert "/no/such/program" in note


async def test_an_agent_killed_in_mid_flood_leaves_no_gap_and_doubles_no_byte(
    cluster: ClusterServer, node: NodeProcess, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    before = kept_bytes(cluster.home)
    name = await flooding(cluster, (0, 10_000, ""), (10_000, 20_000, str(gate)))
    for least in (before + 1_000_000, before + 4_000_000):
        await until(lambda least=least: kept_bytes(cluster.home) > least, "some of it to be shipped")
        node.kill()
        await node.start()
    gate.touch()
    await wait(cluster, name)
    await all_shipped(node, name)
    assert node.rss_bytes() < 150_000_000
    assert await output(cluster, name) == (lines(0, 20_000), [])


async def test_a_server_killed_in_mid_flood_leaves_no_gap_and_doubles_no_byte(
    cluster: ClusterServer, node: NodeProcess, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    before = kept_bytes(cluster.home)
    name = await flooding(cluster, (0, 10_000, ""), (10_000, 20_000, str(gate)))
    for least in (before + 1_000_000, before + 4_000_000):
        await until(lambda least=least: kept_bytes(cluster.home) > least, "some of it to be shipped")
        cluster.signal(signal.SIGKILL)
        await cluster.start()
        await node.until("ready")
    gate.touch()
    await wait(cluster, name)
    await all_shipped(node, name)
    assert await output(cluster, name) == (lines(0, 20_000), [])
    assert await output(cluster, name, tail=2) == (lines(19_998, 20_000), [])


async def test_live_output_is_read_across_server_and_node(
    cluster: ClusterServer, node: NodeProcess, tmp_path: Path
) -> None:
    """Followed from the start, while the first part is shipped and the second one is being printed."""
    gate = tmp_path / "gate"
    before = kept_bytes(cluster.home)
    name = await flooding(cluster, (0, 3_000, ""), (3_000, 6_000, str(gate)))
    await until(lambda: kept_bytes(cluster.home) > before + 2_900_000, "the first part to be shipped")
    reading = asyncio.create_task(output(cluster, name, follow=True))
    gate.touch()
    assert await reading == (lines(0, 6_000), [])


async def test_since_leaves_out_what_is_older_on_the_server_and_on_the_node(
    cluster: ClusterServer, node: NodeProcess, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    before = kept_bytes(cluster.home)
    name = await flooding(cluster, (0, 10, ""), (10, 20, str(gate)))
    await until(lambda: kept_bytes(cluster.home) > before + 10_000, "the first part to be shipped")
    await asyncio.sleep(0.2)  # time has to pass between the two: it is what is asked for
    since = time.time_ns() // 1_000_000
    gate.touch()
    await wait(cluster, name)
    assert (await output(cluster, name, since=since))[0] == lines(10, 20)
    await all_shipped(node, name)
    assert (await output(cluster, name, since=since))[0] == lines(10, 20)


# --- a node in the wrong hands ------------------------------------------------------------------------
EVIL = "node-00000000000000ff"


class Evil:
    """An enrolled node that says what it likes."""

    def __init__(self, link: ClientConnection) -> None:
        self._link = link

    async def say(self, *messages: FromAgent) -> None:
        await self._link.send(encode(messages))

    async def hear(self, kind: type[M]) -> M:
        return await heard(self._link, kind)

    async def closed(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self._link.wait_closed()


@asynccontextmanager
async def evil_node(cluster: ClusterServer, folder: Path) -> AsyncIterator[Evil]:
    await asyncio.to_thread(join, folder, parse_join(await cluster.join_link()), EVIL, "evil")
    url = f"wss{cluster.url.removeprefix('https')}/v1/agent/link"
    context = Membership(folder).context()
    async with connect(url, ssl=context, proxy=None, compression=None, max_size=None) as link:
        evil = Evil(link)
        hello = Hello(
            version=VERSION, build="test", node=EVIL, name="evil", instance="i", boot_id="b", cpu_milli=1000,
            memory_bytes=2**30, pids=1000, labels={}, runtimes={"process": None},
        )  # fmt: skip
        await evil.say(hello)
        assert (await evil.hear(Welcome)).log_window_bytes > 0
        yield evil


async def test_a_node_ships_the_output_of_its_own_attempts_only(
    cluster: ClusterServer, node: NodeProcess, tmp_path: Path
) -> None:
    theirs = await submitted(cluster, ["echo", "true"], where={"node": "n1"})
    await wait(cluster, theirs)
    await all_shipped(node, theirs)
    async with evil_node(cluster, tmp_path / "m") as evil:
        mine = await submitted(cluster, ["true"], where={"node": "evil"}, logs={"max_bytes": 1000})
        await evil.hear(Start)
        own = f"{mine}-0-0-1"
        for attempt in (f"{theirs}-0-0-1", f"{mine}-0-0-2", f"{mine}-9-0-1", "x", "../../x-0-0-0"):
            await evil.say(LogOpen(attempts=(attempt,)))
            assert (await evil.hear(LogAck)).error == f"it is no attempt of node {EVIL}"
            await evil.say(LogPart(attempt=attempt, stream=0, offset=0, data=b"forged"))
            assert (await evil.hear(LogAck)).error == "it was not opened on this link"
        for offset, data, says in ((1, b"x", "0 follows next"), (0, b"x" * 100_000, "logs.max_bytes")):
            await evil.say(LogOpen(attempts=(own,)))
            assert (await evil.hear(LogAck)).error is None
            await evil.say(LogPart(attempt=own, stream=0, offset=offset, data=data))
            refused = await evil.hear(LogAck)
            assert says in str(refused.error)
        await evil.say(LogOpen(attempts=(own,)))
        await evil.hear(LogAck)
        await evil.say(LogPart(attempt=own, stream=0, offset=0, data=b"mine"))
        assert (await evil.hear(LogAck)).sizes == (4, 0)
        await evil.say(LogPart(attempt=own, stream=0, offset=4, data=b"x" * (PART_BYTES + 1)))
        await evil.closed()
    assert await output(cluster, theirs) == (b"true\n", [])
    data, (note,) = await output(cluster, mine)
    assert data == b"mine"
    assert "Node evil is not connected: 4 bytes of stdout had reached" in note
    assert (await cluster.http.delete("/v1/nodes/evil")).status_code == 200


async def test_what_a_lost_node_has_shipped_is_shown_with_how_far_it_goes(
    cluster: ClusterServer, node: NodeProcess, tmp_path: Path
) -> None:
    before = kept_bytes(cluster.home)
    name = await flooding(cluster, (0, 100, ""), (100, 101, str(tmp_path / "never")))
    await until(lambda: kept_bytes(cluster.home) > before + 100_000, "what it has printed to be shipped")
    assert await output(cluster, name) == (lines(0, 100), []), "from the node, it would go on"
    node.destroy()
    await node.until("disconnected")
    data, (note,) = await output(cluster, name)
    assert data == lines(0, 100)
    assert note.startswith("Node n1 is not connected: 100000 bytes of stdout (until 20")
    forgotten = await cluster.http.delete("/v1/nodes/n1")
    assert forgotten.status_code == 200, forgotten.text
    data, (note,) = await output(cluster, name, attempt=1, follow=True)
    assert data == lines(0, 100)
    assert note.startswith("Node n1 is gone: 100000 bytes of stdout")
