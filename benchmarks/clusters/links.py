"""Many links on one server: what they cost when idle, how fast they are all back, when a loss is noticed."""

from __future__ import annotations

import asyncio
import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks import jobs
from benchmarks.clusters.joined import start_server
from benchmarks.clusters.simulated import RUN_S, enrolled
from benchmarks.figures import Figure, Options, Report, median_of
from benchmarks.home import Home, cpu_of, fresh_home
from towline.client import Client
from towline.client.cluster.nodes import Nodes
from towline.store import FILE
from towline.store.sqlite import SqliteStore

NODES, FEWER = 2_000, 500
IDLE_S = 20
LOST_AFTER_S = 25.0
LOOK_EVERY_S = 0.25
PATIENCE_S = 600.0


class Fleet:
    """The process of the agents, and the lines that it prints."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process

    def next(self) -> float:
        """The time that it prints next. Raises RuntimeError where it prints none."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise RuntimeError("the simulated agents are not linked in time")
        return float(json.loads(line))

    def tell(self, word: str) -> float:
        """Have it do something; the time at which it has."""
        assert self._process.stdin is not None
        self._process.stdin.write(word.encode() + b"\n")
        self._process.stdin.flush()
        return self.next()


def run(options: Options) -> Report:
    """2,000 links, and 500."""
    fewer, most = options.count(FEWER, 10), options.count(NODES, 20)
    figures = [
        *_measured(fewer, 3.0, options.pairs, full=False),
        *_measured(most, 20.0, options.pairs, full=True),
    ]
    method = (
        f"agents' links and machines in one process beside the server's; idle for {IDLE_S} s with heartbeats "
        f"each 2 s; all links cut at once, and the server killed and started again, {options.pairs} times; "
        f"the loss of a node while all others run elements of {RUN_S} s"
    )
    title = "TLS links of simulated agents on one server"
    return Report(name="links", title=title, method=method, figures=figures)


def _measured(count: int, most_s: float, rounds: int, *, full: bool) -> list[Figure]:
    cut: list[float] = []
    killed: list[float] = []
    cut_cpu: list[float] = []
    with fresh_home() as home, _fleet(home, count) as (fleet, port):
        fleet.next()
        idle = _idle(home) if full else None
        for _ in range(rounds):
            before = _server_cpu_s(home)
            begin = fleet.tell("cut")
            cut.append(fleet.next() - begin)
            cut_cpu.append((_server_cpu_s(home) - before) / count * 1000)
            killed.append(_killed(home, fleet, port))
        late = asyncio.run(_noticed(home, fleet, count)) if full else None
    name = f"{count:,} links"
    figures = [
        median_of(f"{name}: all back after a cut", cut, "s", most=most_s),
        median_of(f"{name}: all back after kill -9, from the server's being ready", killed, "s", most=most_s),
        median_of(f"{name}: CPU of the server for a link that comes back", cut_cpu, "ms"),
    ]
    if idle is not None:
        used = "the server's use of a core"
        figures.insert(0, Figure(name=f"{name}, idle: {used}", value=idle, unit="%", most=30))
    if late is not None:
        what = f"{name}, under load: a loss is noticed late by"
        note = f"after {LOST_AFTER_S:.0f} s of silence; looked at every 2 s"
        figures.append(Figure(name=what, value=late, unit="s", most=3, note=note))
    return figures


@contextmanager
def _fleet(home: Home, count: int) -> Generator[tuple[Fleet, int], None, None]:
    members = asyncio.run(enrolled(SqliteStore(home.path / FILE), home.path, count))
    file = home.path / "members"
    file.write_bytes(msgspec.msgpack.encode(members))
    port = start_server(home)
    command = [sys.executable, "-m", "benchmarks.clusters.simulated", f"https://127.0.0.1:{port}", str(file)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent.parent
    )
    try:
        yield Fleet(process), port
    finally:
        process.kill()
        process.communicate()


def _server_cpu_s(home: Home) -> float:
    return cpu_of(home.pid("server"))[0]


def _idle(home: Home) -> float:
    """Per cent of a core."""
    time.sleep(3)
    before, begin = _server_cpu_s(home), time.monotonic()
    time.sleep(IDLE_S)
    return (_server_cpu_s(home) - before) / (time.monotonic() - begin) * 100


def _killed(home: Home, fleet: Fleet, port: int) -> float:
    home.end_server(signal.SIGKILL)
    start_server(home, port)
    begin = time.time()
    return max(0.0, fleet.next() - begin)


async def _noticed(home: Home, fleet: Fleet, count: int) -> float:
    """By how much later than it should a silent node is lost, while the others work."""
    async with Client(home.path / "tow.sock") as client:
        # Each element takes half a second, and each node runs some at a time: for a minute there is work.
        job = await client.submit(jobs.array(1_000_000))
        silent_at = fleet.tell("silence")
        node = Nodes(client)
        while (await node.get(f"node-{0:016x}")).state != "lost":  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(LOOK_EVERY_S)
        late_s = time.time() - silent_at - LOST_AFTER_S
        await job.cancel(kill=True)
    return late_s
