"""A server that listens over TLS and a node that has joined it, both on this machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

from tests.ports import free_port

from benchmarks.home import PATIENCE_S, Home, fresh_home
from towline.client import Client
from towline.client.cluster.access import Access
from towline.client.cluster.remote import AUTHORITY_VARIABLE, TOKEN_VARIABLE, VARIABLE, Remote

ROLE = "admin"


class Cluster:
    """``server`` and ``node`` are their homes, ``remote`` is how a client reaches it over TLS."""

    def __init__(self, server: Home, node: Home, remote: Remote, agent: subprocess.Popen[bytes]) -> None:
        self.server = server
        self.node = node
        self.remote = remote
        self.agent = agent
        self.user = Home(node.path)
        """Whose ``tow`` goes to the server over TLS with a token."""
        authority = server.path / "authority.pem"
        authority.write_text(remote.authority)
        found = {VARIABLE: remote.url, TOKEN_VARIABLE: remote.token, AUTHORITY_VARIABLE: str(authority)}
        self.user.env |= found

    def cpu_s(self) -> dict[str, float]:
        """As ``Home.cpu_s``, of both."""
        return {**self.node.cpu_s(), **self.server.cpu_s()}

    def pids(self) -> list[tuple[str, int]]:
        return [*self.server.pids(), *self.node.pids()]


@contextmanager
def cluster() -> Generator[Cluster, None, None]:
    """One server, one node; their processes and files are gone at the end."""
    with fresh_home() as server, fresh_home() as node:
        port = start_server(server)
        agent = start_agent(server, node, port)
        yield Cluster(server, node, asyncio.run(_remote(server, port)), agent)


def start_server(home: Home, port: int = 0) -> int:
    """A server without a node of its own; returns its port, a free one where none is given."""
    port = port or free_port()
    home.env["TOWLINE_LISTEN"] = f"127.0.0.1:{port}"
    home.start_server(arguments=("--without-agent",))
    return port


def start_agent(server: Home, node: Home, port: int, name: str = "node") -> subprocess.Popen[bytes]:
    """An agent that joins, and is ready when this returns."""
    reader, writer = os.pipe()
    os.write(writer, asyncio.run(_join_link(server, port)).encode())
    os.close(writer)
    command = [sys.executable, "-P", "-m", "towline.launch", "agent", "--home", str(node.path)]
    command += ["--join-from", str(reader)]
    environ = {**node.env, "TOWLINE_NODE_NAME": name}
    with (node.path / "agent.log").open("ab") as log:
        agent = subprocess.Popen(command, env=environ, stdout=log, stderr=log, pass_fds=[reader])
    os.close(reader)
    asyncio.run(_until_joined(server, name))
    return agent


async def _join_link(server: Home, port: int) -> str:
    async with Client(server.path / "tow.sock") as client:
        return (await Access(client).create_join(address=f"127.0.0.1:{port}")).link


async def _remote(server: Home, port: int) -> Remote:
    async with Client(server.path / "tow.sock") as client:
        token = (await Access(client).create("bench", ROLE)).token
        authority = await Access(client).authority()
    assert token is not None
    return Remote(url=f"https://127.0.0.1:{port}", token=token, authority=authority)


async def _until_joined(server: Home, name: str) -> None:
    async with asyncio.timeout(PATIENCE_S), Client(server.path / "tow.sock") as client:
        while (name, "ready") not in [(node.name, node.state) for node in await client.nodes()]:  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.05)
