"""The agent from start to end: its lock, its parts, and why it ends.

It holds nothing that its death would lose, so it may end whenever it is of no use: the next one, which
the server of this machine or systemd starts, finds everything in the supervisor's journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from towline.agent import capacity
from towline.agent.artifacts import Artifacts
from towline.agent.cluster.dialing import Dial, dial_cluster, dial_socket
from towline.agent.cluster.leasing import NodeLease
from towline.agent.cluster.room import Room
from towline.agent.cluster.shipping import Shipper
from towline.agent.devices import LocalGpus, find_gpus
from towline.agent.docker.side import DockerSide, probes_of
from towline.agent.exec.service import NodeExec
from towline.agent.executor import Executor
from towline.agent.images import NodeImages, Pulling
from towline.agent.keeper import lock_is_free
from towline.agent.link import Identity, Link
from towline.agent.moving.moves import Moves
from towline.agent.prepare import Preparer
from towline.agent.settings import Settings
from towline.agent.supervisor_client import SupervisorClient
from towline.build import build
from towline.coordination.filelock import FileLease
from towline.core.agent import pauses
from towline.core.agent.machine import AgentMachine
from towline.images import ImageStore
from towline.logs.notes import tell_never_started
from towline.runtime import process
from towline.runtime.docker.probe import probe_docker
from towline.runtime.exec.oci import OciEntering
from towline.runtime.exec.process import ProcessEntering
from towline.runtime.oci.probe import probe_oci
from towline.runtime.port import Probe

if TYPE_CHECKING:
    import httpx2

    from towline.agent.cluster.membership import Membership
    from towline.agent.cluster.servers import Servers

LOCK = "agent.lock"
_LOCK_TRIES = 100
_LOCK_PAUSE_S = 0.02
_KEEPER_END_S = 2.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


async def run_agent(settings: Settings, environ: Mapping[str, str]) -> int:
    """The agent of one home, until its server or the lack of one ends it, or SIGTERM; what runs on the
    node goes on in any case. Returns the exit status."""
    log = structlog.get_logger("agent")
    settings.node_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLease(settings.node_dir / LOCK)
    if not await _locked(lock):
        log.info("another agent serves this node", lock=str(lock.path))
        return 0
    try:
        agent = Agent(settings, environ)
        reason, useless = await agent.run()
        log.info("ending", reason=reason)
        if useless:
            await agent.retire()
    finally:
        lock.release()
    return 0


async def _locked(lock: FileLease) -> bool:
    """Others hold it for a moment only to see whether an agent lives."""
    for _ in range(_LOCK_TRIES):
        if lock.try_acquire():
            return True
        await asyncio.sleep(_LOCK_PAUSE_S)
    return False


class Agent:
    """The object graph, and its three ways to end."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        node_dir = settings.node_dir
        self._gpus = find_gpus(settings.gpus, settings.gpu_nodes)
        artifacts = Artifacts(node_dir / "artifacts")
        images = ImageStore(node_dir / "images", settings.images)
        self._preparer = Preparer(
            node_dir,
            artifacts,
            images,
            environ,
            allowed_mounts=settings.allowed_mounts,
            mount_base_dir=settings.local,
            gpus=self._gpus,
        )
        self._settings = settings
        self._machine = AgentMachine()
        self._executor = Executor(self._machine, self._preparer, artifacts)
        self._images = NodeImages(images, self._machine, self._executor)
        self._docker = DockerSide(
            node_dir, self._executor.changed, settings.containers, environ, settings.images
        )
        self._preparer.docker = self._docker
        self._supervisor = SupervisorClient(os.fspath(node_dir), self._executor, self._docker.known)
        entering = {"process": ProcessEntering(), "oci": OciEntering(os.fspath(node_dir))}
        self._exec = NodeExec(node_dir, self._supervisor, self._docker, settings.policy, entering)
        self._executor.ended = self._exec.attempts_ended
        self._lease = NodeLease(os.fspath(node_dir))
        self._executor.lease_ms = lambda: self._lease.since_ms
        self._executor.keep_log = partial(tell_never_started, node_dir / "output")
        self._member: Membership | None = None
        self._servers: Servers | None = None
        self._moves = Moves(
            node_dir / "artifacts",
            artifacts,
            self._executor,
            self._connect,
            boot_id=_BOOT_ID.read_text().strip(),
            most_bytes=settings.artifacts_cache_bytes,
            member=not settings.local,
        )
        self._environ = environ
        self._lock_inode = (node_dir / LOCK).stat().st_ino
        self._ended_by_signal = asyncio.Event()
        self._renewing: asyncio.Task[None] | None = None

    async def run(self) -> tuple[str, bool]:
        """(the reason of the end, whether the supervisor is of no use either)."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended_by_signal.set)
        supervising = loop.create_task(self._supervisor.run())
        signalled = loop.create_task(self._ended_by_signal.wait())
        linking = loop.create_task(self._link())
        tasks: list[asyncio.Task[Any]] = [supervising, signalled, linking]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if signalled.done():
                return "told to by a signal", False
            if linking.done():
                return linking.result(), True
            supervising.result()
            raise AssertionError("the supervisor's client ended by itself")
        finally:
            self._executor.close()
            self._moves.close()
            if self._renewing is not None:
                self._renewing.cancel()
            for task in tasks:
                if task is not supervising:
                    task.cancel()
            await asyncio.gather(signalled, linking, return_exceptions=True)
            await self._exec.close()
            await self._docker.close()
            self._supervising = supervising

    async def _link(self) -> str:
        oci, found = await asyncio.gather(  # each may take seconds
            asyncio.to_thread(probe_oci, self._settings.node_dir, self._settings.containers),
            asyncio.to_thread(probe_docker, self._environ),
        )
        self._preparer.isolation = oci.isolation
        probes = probes_of(oci.probe, found.probe)
        leased = ["process", *([] if oci.probe.problem is not None else ["oci"])]
        if self._settings.local:
            leased = []
        identity = await asyncio.to_thread(identify, self._settings, self._gpus, probes, leased)
        room = Room(self._settings.node_dir)
        room.look()
        link = Link(
            self._dial(identity.id),
            identity,
            os.fspath(self._settings.node_dir / "output"),
            self._executor,
            self._must_end,
            lambda theirs: self._settings.local and _newer(theirs, identity.build),
            self._images,
            self._exec,
            capacity.NodeUsage(self._settings.node_dir, self._machine),
            self._lease,
            self._shipper(),
            room,
            pauses.LOCAL if self._settings.local else pauses.CLUSTER,
            self._moves.welcomed,
            self._servers,
        )
        self._docker.supervisor = self._supervisor
        self._executor.attach(link, self._docker)
        self._docker.open(found, oci.probe, identity.id)
        await self._supervisor.journal_read.wait()
        await asyncio.to_thread(self._exec.sweep)
        self._preparer.secrets.sweep(self._machine.is_live)
        telling = asyncio.ensure_future(Pulling(self._executor, self._preparer.progress_of).run(link.say))
        try:
            return await link.run(self._supervisor.journal_read)
        finally:
            telling.cancel()

    def _shipper(self) -> Shipper | None:
        """On one machine the server reads the node's files."""
        if self._settings.local:
            return None
        shipper = Shipper(self._settings.node_dir / "output", self._machine.is_live)
        self._executor.news = shipper.news
        return shipper

    def _dial(self, node: str) -> Dial:
        """How to reach the server: this machine's, or the cluster's that it is a node of."""
        if self._settings.local:
            return dial_socket(os.fspath(self._settings.server_socket))
        from towline.agent.cluster.membership import (
            Membership,  # loads X.509, which one machine alone needs not
        )
        from towline.agent.cluster.renewal import keep_renewed

        member = self._member = Membership(self._settings.membership_dir)
        self._renewing = asyncio.create_task(keep_renewed(member, node))
        self._servers = member.servers
        self._servers.also(self._settings.servers)
        return dial_cluster(member.servers, member.context)

    def _connect(self) -> httpx2.Client:
        """For artifacts, whose content would hold up what else is said on the link."""
        import httpx2

        from towline.agent.moving.talking import TIMEOUT_S

        if self._member is None:
            socket = os.fspath(self._settings.server_socket)
            transport = httpx2.HTTPTransport(uds=socket)
            return httpx2.Client(transport=transport, base_url="http://towline", timeout=TIMEOUT_S)
        member = self._member
        return httpx2.Client(
            base_url=member.servers.current, verify=member.context(), timeout=TIMEOUT_S, trust_env=False
        )

    def _must_end(self, alone_s: float) -> str | None:
        try:
            inode = (self._settings.node_dir / LOCK).stat().st_ino
        except OSError:
            inode = 0
        if inode != self._lock_inode:
            return f"the home {self._settings.home} is gone"
        if self._settings.local and alone_s > self._settings.idle_s and not self._machine.busy:
            return f"no server was there for {alone_s:.0f} s, and nothing runs"
        return None

    async def retire(self) -> None:
        """End supervisor and keeper if nothing runs, and wait until the next agent can start new ones."""
        if self._machine.busy:
            return
        await self._supervisor.retire()
        self._supervising.cancel()
        with contextlib.suppress(OSError, TimeoutError):  # something runs: they stay
            async with asyncio.timeout(_KEEPER_END_S):
                while not lock_is_free(os.fspath(self._settings.node_dir)):  # noqa: ASYNC110 - it sets no event of ours
                    await asyncio.sleep(0.01)


def _newer(theirs: str, ours: str) -> bool:
    """Whether the server runs another build, which this machine has by now: its starter starts the next
    agent. Nobody does so in a cluster, where an agent goes on as it is until it is restarted."""
    return theirs != ours and theirs == build.__wrapped__()


def identify(
    settings: Settings, gpus: LocalGpus, containers: list[Probe], leased: Sequence[str] = ()
) -> Identity:
    """Who this node is and what it has; ``leased`` are the runtimes that end with the node lease. Blocks some
    milliseconds: it asks crun for its version."""
    room = capacity.measure()
    probes = [process.probe(), *containers]
    return Identity(
        id=node_id(settings.node_dir / "id"),
        name=settings.name,
        build=build(),
        boot_id=_BOOT_ID.read_text().strip(),
        labels=dict(settings.labels),
        capacity=capacity.Capacity(
            cpu_milli=settings.cpu_milli or room.cpu_milli,
            memory_bytes=settings.memory_bytes or room.memory_bytes,
            pids=room.pids,
            disk_bytes=settings.disk_bytes or capacity.free_disk_bytes(settings.node_dir),
        ),
        runtimes=capacity.runtimes(probes),
        gpus=gpus.rows,
        taints=settings.taints,
        protects=capacity.protections(probes, leased),
    )


def node_id(file: Path) -> str:
    """Random, made once for a node's folder."""
    with contextlib.suppress(FileNotFoundError):
        if found := file.read_text().strip():
            return found
    made = f"node-{secrets.token_hex(8)}"
    fresh = file.with_suffix(".new")
    fresh.write_text(made)
    fresh.replace(file)
    return made
