"""Many agents in one process: real links over TLS and real agents' machines, and nothing that runs.

``python -m benchmarks.clusters.simulated URL FILE``, with what ``enrolled`` gave in the file. It prints, as
JSON lines, the time (unix s) whenever all of them have come to be linked. On its input a line ``cut`` ends
all links at once, ``silence`` that of the first agent for good; it then prints the time too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
import sys
import time
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import structlog

from towline.agent.capacity import Capacity
from towline.agent.cluster.dialing import dial_cluster
from towline.agent.cluster.servers import Servers
from towline.agent.link import Identity, Link
from towline.core.agent import effects as out
from towline.core.agent import events as on
from towline.core.agent.machine import AgentMachine
from towline.core.agent.pauses import CLUSTER
from towline.core.commands import AttemptUpdate
from towline.identity.certificates import Pair, make_key, make_request
from towline.identity.tls import client_context
from towline.server.access.authority import open_authority
from towline.server.vault import KEY_FILE, Vault
from towline.store.access import EnrolmentRow
from towline.store.port import Store

RUN_S = 0.5
"""How long an element takes."""
BETWEEN_S = 0.005
"""They are not all started in one moment; what is measured is how they come back."""


class Members(msgspec.Struct):
    """One key and many certificates of it, PEM, by node."""

    authority: bytes
    key: bytes
    certificates: dict[str, bytes]


async def enrolled(store: Store, home: Path, count: int, pool: str = "") -> Members:
    """Enrol so many nodes of a pool in the store of a home's server, which does not run, or shares it."""
    await store.open()
    authority = await open_authority(Vault(store, home / KEY_FILE))
    key = make_key()
    request, now_ms = make_request(key, "bench"), int(time.time() * 1000)
    members = Members(authority.certificate, key, {})
    for at in range(count):
        node = _named(pool, at)
        members.certificates[node], end_ms = authority.node(request, node)
        row = EnrolmentRow(node=node, name=node, enrolled_at=now_ms, expires_at=end_ms, pool=pool)
        await store.enrolment_put(row)
    await store.close()
    return members


def _named(pool: str, at: int) -> str:
    """Nodes of other pools than the first have other ids."""
    first = 0 if not pool else int.from_bytes(blake2b(pool.encode(), digest_size=4).digest()) << 32
    return f"node-{first + at:016x}"


class _Templates:
    """What tasks are matters to nobody here."""

    def add(self, _: object) -> None: ...

    def pin(self, *_: object) -> None: ...


class _Agent:
    """Each element that it is given ends well after a while."""

    def __init__(self, fleet: Fleet, node: str, url: str, context: ssl.SSLContext) -> None:
        self.machine = AgentMachine()
        self.machine.handle(on.SupervisorUp(instance=f"{node}-1", known=()), _now_ms())
        self.templates = _Templates()
        self._fleet = fleet
        self._node = node
        self._flushing = False
        servers = Servers(url)
        dial = dial_cluster(servers, lambda: context)
        self.link = Link(
            dial, _identity(node), "/nowhere/output", self, _never, pauses=CLUSTER, servers=servers
        )

    def tell(self, *events: on.Event) -> None:
        waiting = list(events)
        while waiting:
            event = waiting.pop(0)
            for effect in self.machine.handle(event, _now_ms()):
                self._perform(effect, waiting)
            if isinstance(event, on.Welcomed | on.LinkClosed):
                self._fleet.heard(self._node, linked=isinstance(event, on.Welcomed))
        if self.machine.wants_flush and not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self.tell(on.Flush())

    def _perform(self, effect: out.Effect, further: list[on.Event]) -> None:
        match effect:
            case out.SendHello():
                self.link.hello(effect.instance, effect.known)
            case out.SendReport():
                from towline.wire.messages import Report

                self.link.say(Report(seq=effect.seq, updates=effect.updates))
            case out.Prepare():
                further.append(on.Prepared([(name, name) for name, _, _ in effect.elements]))
            case out.RunPlans():
                asyncio.get_running_loop().call_later(RUN_S, self._ended, effect.plans, _now_ms())
            case out.DropLink():
                self.link.drop(effect.why)
            case _:
                pass

    def _ended(self, attempts: list[str], began_ms: int) -> None:
        end = {"state": "finished", "reason": "exited", "exit_code": 0, "finished_at": _now_ms()}
        self.tell(on.Changed([AttemptUpdate(attempt=at, started_at=began_ms, **end) for at in attempts]))


class Fleet:
    """All agents of this process."""

    def __init__(self, members: Members, url: str) -> None:
        self._linked: set[str] = set()
        self._agents: list[_Agent] = []
        for node, certificate in members.certificates.items():
            context = client_context(members.authority, Pair(key=members.key, certificate=certificate))
            self._agents.append(_Agent(self, node, url, context))
        self._tasks: list[asyncio.Task[str]] = []

    def heard(self, node: str, *, linked: bool) -> None:
        if not linked:
            self._linked.discard(node)
            return
        self._linked.add(node)
        if len(self._linked) == len(self._agents):
            _say(time.time())

    async def run(self) -> None:
        ready = asyncio.Event()
        ready.set()
        for agent in self._agents:
            task = asyncio.create_task(agent.link.run(ready))
            task.add_done_callback(_ended)
            self._tasks.append(task)
            await asyncio.sleep(BETWEEN_S)
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
        )
        while line := (await lines.readline()).strip():
            if line == b"cut":
                _say(time.time())
                for agent in self._agents:
                    agent.link.drop("cut")
            elif line == b"silence":
                self._tasks[0].cancel()
                _say(time.time())


def _ended(task: asyncio.Task[str]) -> None:
    """Nobody waits for a link: one that fails is the end of all."""
    if not task.cancelled():
        sys.stderr.write(f"a link has ended: {task.exception() or task.result()}\n")
        os._exit(1)


def _identity(node: str) -> Identity:
    room = Capacity(cpu_milli=1000, memory_bytes=2**32, pids=100_000)
    return Identity(
        id=node, name=node, build="bench", boot_id="", labels={}, capacity=room, runtimes={"process": None}
    )


def _never(_: float) -> str | None:
    return None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _say(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main(url: str, file: str) -> None:
    logging.basicConfig(level=logging.ERROR)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    members = msgspec.msgpack.decode(Path(file).read_bytes(), type=Members)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def work() -> None:
            await Fleet(members, url).run()

        runner.run(work())


if __name__ == "__main__":
    main(*sys.argv[1:])
