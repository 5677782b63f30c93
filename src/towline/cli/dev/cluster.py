"""A server over TLS and its nodes as processes of this machine."""

from __future__ import annotations

import asyncio
import os
import socket
import zlib
from pathlib import Path

import msgspec

from towline.agent.capacity import measure
from towline.cli.dev.ending import MADE, SERVER, SOCKET, Made
from towline.cli.dev.network import NETWORK, Network, free_subnet
from towline.cli.dev.processes import Process, Tell
from towline.client import Client
from towline.client.cluster.access import Access
from towline.client.cluster.contexts import Contexts, check_name, contexts_file
from towline.client.cluster.remote import Remote
from towline.coordination.filelock import FileLease
from towline.errors import OperatorError, RequestError, Unavailable
from towline.identity.joining import PORT
from towline.identity.tls import write_private

READY_S = 120.0
_LOOK_S = 0.05
_NETWORKS_LOCK = Path("/run/towline-networks.lock")
_CA, _TOKEN = "authority.pem", "dev"


class DevCluster:
    """In ``folder``, which is made. ``start`` returns once all nodes are ready."""

    def __init__(self, folder: Path, nodes: int, context: str, tell: Tell) -> None:
        self._folder = folder
        self._names = [f"n{at}" for at in range(1, nodes + 1)]
        self._context = context
        self._tell = tell
        self._network: Network | None = None
        self._address = ""
        self._server: Process | None = None
        self._agents: list[Process] = []

    async def start(self, *, namespaces: bool) -> None:
        """Raises Unavailable, with the end of a log, where something does not come up."""
        self._folder.mkdir(mode=0o700)
        if namespaces:
            try:
                await self._open_network()
            except OperatorError as error:
                self._tell(f"No network namespaces here: {error}. The nodes share this machine's network.")
        await self._serve()
        async with self._client() as client:
            remote = await self._add_context(Access(client))
            for name in self._names:
                await self._join(Access(client), name)
            await self._until_joined(client)
        self._tell(f"The cluster is ready on {remote.url}.")

    async def keep(self) -> None:
        """Start again what ends. Raises OperatorError where the server does so again and again."""
        assert self._server is not None
        agents = [asyncio.create_task(self._keep(agent)) for agent in self._agents]
        try:
            await self._server.keep(self._tell)
        finally:
            for task in agents:
                task.cancel()
            await asyncio.gather(*agents, return_exceptions=True)

    async def _keep(self, agent: Process) -> None:
        try:
            await agent.keep(self._tell)
        except OperatorError as error:  # such as one that is forgotten: the others go on
            self._tell(f"{error}\n{agent.name} is left alone.")

    # --- its parts ------------------------------------------------------------------------------------
    async def _open_network(self) -> None:
        prefix = f"tow{zlib.crc32(os.fsencode(self._folder)):08x}"
        lock = FileLease(_NETWORKS_LOCK)
        await lock.acquire()  # so that two take no network at once
        try:
            subnet = free_subnet()
            network = Network(prefix, self._folder / NETWORK, subnet)
            network.open()
        finally:
            lock.release()
        self._network = network
        self._tell(f"Network: {subnet}, each node in a network namespace of its own.")

    async def _serve(self) -> None:
        host, port = ("127.0.0.1", _free_port()) if self._network is None else (self._network.address, PORT)
        self._address = f"{host}:{port}"
        home = self._folder / SERVER
        home.mkdir(mode=0o700)
        self._server = Process("The server", "server", home, None, {})
        await self._server.start(["--without-agent", "--listen", self._address])
        try:
            async with asyncio.timeout(READY_S), self._client() as client:
                while not await _answers(client):
                    self._server.check()
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise Unavailable(
                f"The server is not ready after {READY_S:.0f} s: see {self._server.log}."
            ) from None

    def _client(self) -> Client:
        return Client(self._folder / SERVER / SOCKET, patience_s=0)

    async def _add_context(self, access: Access) -> Remote:
        """The token and the authority lie in the folder as well, for whoever takes variables."""
        token = (await access.create(_TOKEN, "admin")).token
        assert token is not None
        authority = await access.authority()
        remote = Remote(url=f"https://{self._address}", token=token, authority=authority)
        write_private(self._folder / _CA, authority.encode())
        write_private(self._folder / MADE, msgspec.json.encode(Made(context=self._context, token=token)))
        Contexts(contexts_file(os.environ)).add(self._context, remote, use=False)
        return remote

    async def _join(self, access: Access, name: str) -> None:
        space = None if self._network is None else self._network.add()
        home = self._folder / name
        home.mkdir(mode=0o700)
        environ = {"TOWLINE_NODE_NAME": name}
        if "TOWLINE_NODE_MEMORY" not in os.environ:
            environ["TOWLINE_NODE_MEMORY"] = str(measure().memory_bytes // len(self._names))
        agent = Process(name, "agent", home, space, environ)
        link = (await access.create_join(address=self._address)).link
        reader = _readable(link)
        try:
            await agent.start(first=["--join-from", str(reader)], fd=reader)
        finally:
            os.close(reader)
        self._agents.append(agent)

    async def _until_joined(self, client: Client) -> None:
        ready: set[str] = set()
        try:
            async with asyncio.timeout(READY_S):
                while len(ready) < len(self._names):
                    for agent in self._agents:
                        agent.check()
                    for node in await client.nodes():
                        if node.state == "ready" and node.name not in ready:
                            ready.add(node.name)
                            self._tell(f"Node {node.name}: ready ({len(ready)} of {len(self._names)}).")
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            missing = ", ".join(sorted(set(self._names) - ready))
            raise Unavailable(f"After {READY_S:.0f} s these nodes are not ready: {missing}.") from None


async def _answers(client: Client) -> bool:
    try:
        await client.nodes()
    except Unavailable:
        return False
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _readable(link: str) -> int:
    """A descriptor that the join link is read from; it is a secret, and no argument."""
    reader, writer = os.pipe()
    os.write(writer, link.encode())
    os.close(writer)
    return reader


def check_context(name: str) -> None:
    """Raises RequestError where there can be no context of that name, or is one for something else."""
    check_name(name)
    if name in Contexts(contexts_file(os.environ)).names:
        raise RequestError(
            f"There is a context {name} already: give another name with --context, or remove it with "
            f"`tow context rm {name}`."
        )
