"""Output that nodes ship to a server over TLS: nothing twice and nothing missing, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.integration.cluster.cluster_server import ClusterServer
from tests.integration.cluster.node_process import NodeProcess
from tests.integration.server_process import PATIENCE_S, job

FLOOD = "i=0; while [ $i -lt %d ]; do printf '%%%%0999d\\n' $i; i=$((i+1)); done"
"""Numbered lines of 1000 bytes."""


@pytest.fixture
async def node(cluster: ClusterServer) -> AsyncIterator[NodeProcess]:
    made = NodeProcess(cluster, "n1")
    try:
        await made.start()
        yield made
    finally:
        made.close()


def lines(first: int, end: int) -> bytes:
    return b"".join(b"%0999d\n" % number for number in range(first, end))


async def submitted(cluster: ClusterServer, script: str, **fields: Any) -> str:
    answer = await cluster.submit(job(a={"command": ["sh", "-c", script], **fields}))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def output(cluster: ClusterServer, name: str, **query: Any) -> tuple[bytes, list[str]]:
    """What is shown of the only element's stdout, and the notes."""
    text = await cluster.http.get(f"/v1/jobs/{name}/tasks/a/elements/0/logs", params=query)
    assert text.status_code == 200, text.text
    said = [json.loads(line) for line in text.text.splitlines()]
    data = b"".join(b64decode(line["data"]) for line in said if line["stream"] == "stdout")
    return data, [line["note"] for line in said if line.get("note")]


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.02)
    assert condition(), what


async def wait(cluster: ClusterServer, name: str) -> None:
    await cluster.get(f"/v1/jobs/{name}/wait", timeout_s=PATIENCE_S)


async def test_output_is_on_the_server_and_leaves_the_node(cluster: ClusterServer, node: NodeProcess) -> None:
    name = await submitted(cluster, "echo out; echo err >&2")
    await wait(cluster, name)
    await until(lambda: not node.output(f"{name}-0-0-1").exists(), "the node to drop its copy")
    node.destroy()
    assert await output(cluster, name) == (b"out\n", [])
