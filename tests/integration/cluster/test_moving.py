"""The routes by which nodes bring and get artifacts: each node its own attempts' alone."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
import pytest_asyncio
from tests.integration.cluster.cluster_server import ClusterServer, free_port
from tests.integration.cluster.heard import heard
from tests.integration.server_process import PATIENCE_S, ServerProcess, job
from websockets.asyncio.client import ClientConnection, connect

from towline.agent.cluster.membership import Membership, join
from towline.agent.moving.talking import Incomplete, NotNow, Refused, Talking
from towline.client.api import Client
from towline.client.artifacts import Artifacts
from towline.core.commands import AttemptUpdate
from towline.errors import Damaged
from towline.identity.joining import parse_join
from towline.wire.artifacts import FILE, Artifact
from towline.wire.manifest import BLOB_BYTES, Kept, Manifest, digest_of
from towline.wire.messages import VERSION, Ack, Hello, Report, Start, Welcome, encode

TOW = str(Path(sys.executable).with_name("tow"))
CONTENT = bytes(range(256)) * (BLOB_BYTES // 256) + b"the end!" * 2**17
"""The last blob is of whole pieces, as they are read."""
BLOBS = [CONTENT[:BLOB_BYTES], CONTENT[BLOB_BYTES:]]
WHOLE = Manifest(
    entries=(Artifact(path="d/x", kind=FILE, size_bytes=len(CONTENT), modified_ms=0, mode=0o644),),
    size_bytes=len(CONTENT),
    blobs=tuple(map(digest_of, BLOBS)),
)
SMALL = Manifest(
    entries=(Artifact(path="x", kind=FILE, size_bytes=5, modified_ms=0, mode=0o644),),
    size_bytes=5,
    inline=b"hello",
)


class HandNode:
    """A node whose agent is this test."""

    def __init__(self, cluster: ClusterServer, number: int) -> None:
        self._cluster = cluster
        self.id = f"node-{number:016x}"
        self.name = f"n{number}"
        self._seq = 0

    async def join(self, folder: Path, **fields: Any) -> None:
        link = parse_join(await self._cluster.join_link(**fields))
        await asyncio.to_thread(join, folder, link, self.id, self.name)
        self.member = Membership(folder)
        self.talking = Talking(self._client)
        url = f"wss{self._cluster.url.removeprefix('https')}/v1/agent/link"
        self._link: ClientConnection = await connect(url, ssl=self.member.context(), proxy=None)
        hello = Hello(
            version=VERSION, build="test", node=self.id, name=self.name, instance="i", boot_id="b",
            cpu_milli=8000, memory_bytes=2**34, pids=1000, labels={}, runtimes={"process": None},
        )  # fmt: skip
        await self._link.send(encode([hello]))
        assert (await self.hear(Welcome)).takes_artifacts

    def _client(self) -> httpx2.Client:
        context = self.member.context()
        return httpx2.Client(base_url=self._cluster.url, verify=context, timeout=PATIENCE_S, trust_env=False)

    async def hear(self, kind: type[Any]) -> Any:
        return await heard(self._link, kind)

    async def ended(self, attempt: str, exit_code: int = 0) -> None:
        """Report the attempt's end, and wait until that is committed."""
        self._seq += 1
        update = AttemptUpdate(attempt=attempt, state="finished", reason="exited", exit_code=exit_code)
        await self._link.send(encode([Report(seq=self._seq, updates=(update,))]))
        while (await self.hear(Ack)).seq != self._seq:
            pass

    async def ask(self, what: str, *arguments: Any) -> Any:
        return await asyncio.to_thread(getattr(self.talking, what), *arguments)

    async def bring(self, attempt: str, manifest: Manifest = WHOLE) -> None:
        for digest in manifest.blobs:
            blob = next(blob for blob in BLOBS if digest_of(blob) == digest)
            await self.ask("put_blob", attempt, digest.hex(), blob)
        await self.ask("put_manifest", attempt, manifest)

    async def close(self) -> None:
        self.talking.close()
        await self._link.close()


@pytest_asyncio.fixture
async def nodes(cluster: ClusterServer, tmp_path: Path) -> AsyncIterator[tuple[HandNode, HandNode]]:
    made = HandNode(cluster, 1), HandNode(cluster, 2)
    for node in made:
        await node.join(tmp_path / node.name)
    yield made
    for node in made:
        await node.close()


async def submitted(cluster: ServerProcess, **tasks: Any) -> str:
    plain = {"command": ["true"], "resources": {"cpu": 0.1, "memory": "32Mi"}}
    answer = await cluster.submit(job(**{name: {**plain, **fields} for name, fields in tasks.items()}))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def test_an_input_goes_from_its_writer_to_its_reader(
    cluster: ClusterServer, nodes: tuple[HandNode, HandNode]
) -> None:
    writer, reader = nodes
    name = await submitted(
        cluster,
        make={"where": {"node": "n1"}, "array": 3},
        use={"where": {"node": "n2"}, "needs": ["make"], "inputs": {"make": "in"}},
    )
    await writer.hear(Start)
    for index, manifest in ((0, WHOLE), (2, SMALL)):
        await writer.bring(f"{name}-0-{index}-1", manifest)
    for index in range(3):
        await writer.ended(f"{name}-0-{index}-1")
    await reader.hear(Start)
    attempt = f"{name}-1-0-1"
    assert await reader.ask("inputs", attempt, "make") == {0: 1, 2: 1}
    assert await reader.ask("manifest", attempt, "make", 0) == WHOLE
    assert await reader.ask("manifest", attempt, "make", 2) == SMALL
    got = [await reader.ask("blob", attempt, "make", 0, digest) for digest in WHOLE.blobs]
    assert b"".join(got) == CONTENT
    # Users get them of the server.
    path = f"/v1/jobs/{name}/tasks/make/elements"
    assert [one["path"] for one in (await cluster.get(f"{path}/0/artifacts"))["artifacts"]] == ["d/x"]
    assert (await cluster.get(f"{path}/1/artifacts"))["artifacts"] == []
    answer = await cluster.http.get(f"{path}/2/artifacts/content", params={"file": "x", "offset": 1})
    assert answer.content == b"\0\0\0\4" + digest_of(b"ello") + b"ello" + bytes(4) + digest_of(b"")


async def test_a_node_writes_of_its_own_attempts_only(
    cluster: ClusterServer, nodes: tuple[HandNode, HandNode]
) -> None:
    owner, other = nodes
    name = await submitted(cluster, make={"where": {"node": "n1"}})
    await owner.hear(Start)
    mine = f"{name}-0-0-1"
    digest = WHOLE.blobs[0].hex()
    for node, attempt in ((other, mine), (owner, f"{name}-0-0-2"), (owner, "nothing"), (owner, "x-0-0-1")):
        for what in (
            ("kept", attempt),
            ("put_blob", attempt, digest, BLOBS[0]),
            ("put_manifest", attempt, SMALL),
        ):
            with pytest.raises(Refused, match=f"There is no attempt '{attempt}' under way on this node"):
                await node.ask(*what)
    await owner.ask("put_blob", mine, digest, BLOBS[0])
    await owner.ended(mine, exit_code=1)
    with pytest.raises(Refused):  # what has ended is written
        await owner.ask("kept", mine)


async def test_nothing_half_or_damaged_is_ever_shown(
    cluster: ClusterServer, nodes: tuple[HandNode, HandNode]
) -> None:
    owner, _ = nodes
    name = await submitted(cluster, make={"where": {"node": "n1"}})
    await owner.hear(Start)
    mine = f"{name}-0-0-1"
    names = [digest.hex() for digest in WHOLE.blobs]
    await owner.ask("put_blob", mine, names[1], BLOBS[1])
    with pytest.raises(Incomplete, match="damaged on its way"):
        await owner.ask("put_blob", mine, names[0], BLOBS[1])
    with pytest.raises(Incomplete, match="longer than"):
        await owner.ask("put_blob", mine, names[0], BLOBS[0] + b"x")
    with pytest.raises(Incomplete, match="no blob's name"):
        await owner.ask("put_blob", mine, "x" * 64, BLOBS[1])
    with pytest.raises(Incomplete, match="is not there: bring it first"):
        await owner.ask("put_manifest", mine, WHOLE)
    assert await owner.ask("kept", mine) == Kept(whole=False, blobs=(names[1],))
    evil = Artifact(path="../x", kind=FILE, size_bytes=5, modified_ms=0, mode=0o644)
    with pytest.raises(Incomplete, match="no path below TOW_OUT"):
        await owner.ask("put_manifest", mine, msgspec.structs.replace(SMALL, entries=(evil,)))
    await owner.bring(mine)
    assert await owner.ask("kept", mine) == Kept(whole=True)


async def test_what_has_been_damaged_since_is_told_to_whoever_fetches_it(
    cluster: ClusterServer, nodes: tuple[HandNode, HandNode], tmp_path: Path
) -> None:
    """Of one element the second blob, when the first one is on its way; of the next one the first."""
    writer, _ = nodes
    name = await submitted(cluster, make={"where": {"node": "n1"}, "array": 2})
    await writer.hear(Start)
    for index in (0, 1):
        await writer.bring(f"{name}-0-{index}-1")
        await writer.ended(f"{name}-0-{index}-1")
        kept = cluster.home / f"objects/artifacts/{name}/blobs/0.{index}.1" / WHOLE.blobs[1 - index].hex()
        kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    taken: list[int] = []
    async with Client(cluster.socket) as client:
        for index, begun in ((0, BLOB_BYTES), (1, 0)):
            with pytest.raises(Damaged, match=f"{name}-0-{index}-1 wrote is damaged in the object store"):
                async for piece in Artifacts(client, name, "make", index).read("d/x"):
                    taken.append(len(piece))
            assert sum(taken) == begun
            taken.clear()
    argv = [TOW, "artifacts", "get", name, "-o", str(tmp_path / "got")]
    environ = {**os.environ, "TOWLINE_HOME": str(cluster.home)}
    done = await asyncio.to_thread(subprocess.run, argv, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{name}-0-0-1 wrote is damaged in the object store" in done.stderr
    assert [path for path in (tmp_path / "got").rglob("*") if path.is_file()] == []


async def test_a_node_reads_what_its_own_attempts_name_as_input_only(
    cluster: ClusterServer, nodes: tuple[HandNode, HandNode]
) -> None:
    writer, reader = nodes
    name = await submitted(
        cluster,
        make={"where": {"node": "n1"}, "array": 2},
        hidden={"where": {"node": "n1"}},
        use={
            "where": {"node": "n2"}, "array": 2, "inputs": {"make": "in"},
            "needs": [{"task": "make", "each": True}, "hidden"],
        },
    )  # fmt: skip
    await writer.hear(Start)
    for attempt in (f"{name}-0-0-1", f"{name}-0-1-1", f"{name}-1-0-1"):
        await writer.bring(attempt)
        await writer.ended(attempt)
    await reader.hear(Start)
    first = f"{name}-2-0-1"
    assert await reader.ask("inputs", first, "make") == {0: 1}
    digest = WHOLE.blobs[0]
    wrong = [
        (reader, first, "hidden", 0),
        (reader, first, "nothing", 0),
        (reader, first, "make", 1),
        (reader, f"{name}-0-0-1", "make", 0),
        (writer, first, "make", 0),
        (writer, f"{name}-1-0-1", "make", 0),
    ]
    for node, *what in wrong:
        with pytest.raises(Refused):
            await node.ask("manifest", *what)
        with pytest.raises(Refused):
            await node.ask("blob", *what, digest)
    with pytest.raises(Refused, match="There is no blob"):
        await reader.ask("blob", first, "make", 0, digest_of(b"another"))
    await reader.ended(first)
    with pytest.raises(Refused):  # its attempt has ended
        await reader.ask("manifest", first, "make", 0)


async def test_a_forgotten_node_gets_nothing(
    cluster: ClusterServer, nodes: tuple[HandNode, HandNode]
) -> None:
    owner, _ = nodes
    name = await submitted(cluster, make={"where": {"node": "n1"}})
    await owner.hear(Start)
    await owner.ask("kept", f"{name}-0-0-1")
    await owner._link.close()
    answer = await cluster.http.delete("/v1/nodes/n1")
    while answer.status_code == 400:  # until the server has seen that its link is closed
        answer = await cluster.http.delete("/v1/nodes/n1")
    assert answer.status_code == 200, answer.text
    with pytest.raises(NotNow, match="Show a token"):
        await owner.ask("kept", f"{name}-0-0-1")


async def test_the_servers_own_machine_as_a_node_brings_them_too(tmp_path: Path) -> None:
    """Its agent comes through the socket, with no certificate."""
    home = Path(tempfile.mkdtemp(prefix="tow-"))
    server = ServerProcess(home)
    try:
        await server.start("--listen", f"127.0.0.1:{free_port()}")
        name = await submitted(
            server,
            make={"command": ["sh", "-c", "echo hello > $TOW_OUT/x"]},
            use={"command": ["cat", "in/x"], "needs": ["make"], "inputs": {"make": "in"}},
        )
        await server.get(f"/v1/jobs/{name}/wait", timeout_s=PATIENCE_S)
        assert (await server.get(f"/v1/jobs/{name}"))["state"] == "succeeded"
        assert (home / "objects/artifacts" / name / "manifests/0/0.1").is_file()
    finally:
        await server.close()
        shutil.rmtree(home)


async def test_artifacts_go_with_their_job(tmp_path: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="tow-"))
    cluster = ClusterServer(home, TOWLINE_RETENTION_DAYS="1e-9")
    owner = HandNode(cluster, 1)
    try:
        await cluster.start()
        await owner.join(tmp_path / "n1")
        name = await submitted(cluster, make={"where": {"node": "n1"}})
        await owner.hear(Start)
        await owner.bring(f"{name}-0-0-1")
        before = (await cluster.http.post("/v1/gc", json={"dry_run": True})).json()
        assert (before["jobs"], before["artifact_bytes"]) == (0, 0)
        await owner.ended(f"{name}-0-0-1")
        would = (await cluster.http.post("/v1/gc", json={"dry_run": True})).json()
        assert would["artifact_bytes"] > len(CONTENT)
        gone = (await cluster.http.post("/v1/gc", json={})).json()
        assert (gone["jobs"], gone["artifact_bytes"]) == (1, would["artifact_bytes"])
        assert not (home / "objects/artifacts" / name).exists()
        await owner.close()
    finally:
        await cluster.close()
        shutil.rmtree(home)


async def test_what_is_too_old_goes_in_all_pools_or_in_one(tmp_path: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="tow-"))
    cluster = ClusterServer(home, TOWLINE_RETENTION_DAYS="1e-9")
    owners = {pool: HandNode(cluster, number) for number, pool in enumerate(("default", "gpu"))}
    made: dict[str, str] = {}

    async def collected(**query: str) -> Any:
        sizes = [
            (await cluster.http.post("/v1/gc", json=body, params=query)).raise_for_status().json()
            for body in ({"dry_run": True}, {})
        ]
        assert [one["jobs"] for one in sizes] == [sizes[0]["jobs"]] * 2
        assert sizes[0]["artifact_bytes"] == sizes[1]["artifact_bytes"]
        return sizes[1]

    async def run() -> None:
        for pool, owner in owners.items():
            task = {"runtime": "process", "command": ["true"], "resources": {"cpu": 0.1, "memory": "32Mi"}}
            answer = await cluster.submit({"name": "j", "pool": pool, "tasks": {"t": task}})
            made[pool] = answer.raise_for_status().json()["id"]
            await owner.hear(Start)
            await owner.bring(f"{made[pool]}-0-0-1")
            await owner.ended(f"{made[pool]}-0-0-1")

    try:
        await cluster.start()
        (await cluster.http.post("/v1/pools", json={"pool": "gpu"})).raise_for_status()
        cluster.signal(signal.SIGTERM)
        await cluster.start()  # what has ended after it is left to whoever asks
        for pool, owner in owners.items():
            await owner.join(tmp_path / owner.name, pool=pool)
        await run()
        one = await collected(pool="gpu")
        assert one["jobs"] == 1 and one["artifact_bytes"] > len(CONTENT)
        assert [(home / "objects/artifacts" / made[pool]).exists() for pool in owners] == [True, False]
        await run()
        every = await collected()
        assert (every["jobs"], every["artifact_bytes"]) == (3, 3 * one["artifact_bytes"])
        assert list((home / "objects/artifacts").glob("*/manifests")) == []
        assert await collected() == {**every, "jobs": 0, "freed_bytes": 0, "artifact_bytes": 0}
        for owner in owners.values():
            await owner.close()
    finally:
        await cluster.close()
        shutil.rmtree(home)
