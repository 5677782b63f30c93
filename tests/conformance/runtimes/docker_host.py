"""The docker runtime in a process of its own, for the suite: what the agent has of it, behind a socket
that speaks as the supervisor does, so that the same checks can be made and the process be killed.

python -m tests.conformance.runtimes.docker_host       (a JSON line on stdin each: Order; answers with pids)

It has loaded everything already and forks, since a fresh interpreter takes as long as a container. Its
processes end with it, and it ends with whoever wrote to it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from towline.agent import control
from towline.agent.docker.client import Engine
from towline.agent.docker.runner import DockerRunner
from towline.core.commands import AttemptUpdate
from towline.runtime.docker.spec import Traits

_PR_SET_PDEATHSIG = 1


class Order(Struct, frozen=True, kw_only=True):
    """Which host is wanted: that of a node's folder, at an engine."""

    node_dir: str
    url: str
    traits: Traits


class Host:
    def __init__(self, order: Order) -> None:
        self.order = order
        self.node_dir = Path(order.node_dir)
        self.runner = DockerRunner(self.node_dir, self.tell)
        self.writer: asyncio.StreamWriter | None = None
        self.ended = asyncio.Event()

    def tell(self, updates: Sequence[AttemptUpdate]) -> None:
        if self.writer is not None:
            self.writer.write(control.encode([control.Changed(updates=tuple(updates))]))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        known = tuple(self.runner.known())
        writer.write(control.encode([control.Snapshot(instance="docker", known=known)]))
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(4), "big")
                for message in control.decode_to_supervisor(await reader.readexactly(length)):
                    if isinstance(message, control.Retire):
                        self.retire()
                    self.runner.say(message)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def retire(self) -> None:
        if not self.runner.busy:
            self.ended.set()

    async def run(self) -> None:
        node = self.node_dir.name.rpartition("-")[2]
        self.runner.open(Engine(self.order.url, self.order.traits.api), self.order.traits, node)
        os.chdir(self.node_dir)
        async with await asyncio.start_unix_server(self.serve, "supervisor.new"):
            os.replace("supervisor.new", "supervisor.sock")  # noqa: PTH105
            await self.ended.wait()
        await self.runner.close()


def _become(order: Order) -> None:
    """The rest of the life of a forked process."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(f"{order.node_dir}/keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        asyncio.run(Host(order).run())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while line := sys.stdin.buffer.readline():
        order = msgspec.json.decode(line, type=Order)
        pid = os.fork()
        if pid == 0:
            _become(order)
        os.write(1, b"%d\n" % pid)


if __name__ == "__main__":
    main()
