"""One node that prints as fast as it can, in a cluster: how fast its output is on the server's disk."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.segments import kept_bytes

from benchmarks import jobs
from benchmarks.clusters.joined import cluster
from benchmarks.containers import busybox_image
from benchmarks.figures import Figure, Options, Report, median_of
from benchmarks.home import Home, cpu_of
from towline.client import Client

BLOCK_BYTES = 1 << 20
BLOCKS = 512
LOOK_S = 0.01


def run(options: Options) -> Report:
    """A flood through a TLS link, in turn with the same bytes written and synced by one process."""
    blocks = options.count(BLOCKS)
    size_mb = blocks * BLOCK_BYTES / 1e6
    found: dict[str, list[float]] = {name: [] for name in ("floor", "shipped", "agent", "server")}
    with cluster() as joined:
        server = joined.server
        pids = {"server": server.pid("server"), "agent": joined.agent.pid}
        with peak_of(joined.agent.pid) as peak:
            for _ in range(options.pairs):
                found["floor"].append(size_mb / _floor_s(server.path, blocks))
                before = {role: sum(cpu_of(pid)) for role, pid in pids.items()}
                found["shipped"].append(size_mb / _shipped_s(server, _process(blocks), blocks))
                for role, pid in pids.items():
                    found[role].append((sum(cpu_of(pid)) - before[role]) / size_mb * 1000)
        with peak_of(joined.agent.pid) as contained:
            _shipped_s(server, _in_container(server, blocks), blocks)
    ratios = [mine / floor for mine, floor in zip(found["shipped"], found["floor"], strict=True)]
    return Report(
        name="logs-shipped",
        title="output of one node, shipped to its server over TLS",
        method=f"{size_mb:,.0f} MB of lines by one process, from its start until the server has all of it on "
        f"its disk; both on one machine, in turn with writing and syncing as much, {options.pairs} times",
        figures=[
            median_of("shipped", found["shipped"], "MB/s", least=50),
            median_of("shipped / written and synced", ratios),
            median_of("CPU of the agent", found["agent"], "s/GB"),
            median_of("CPU of the server", found["server"], "s/GB"),
            Figure(name="the agent's memory at most (RSS)", value=peak.rss_mb, unit="MB", most=150),
            Figure(name="... while a container floods", value=contained.rss_mb, unit="MB", most=150),
        ],
    )


def _floor_s(folder: Path, blocks: int) -> float:
    block = os.urandom(BLOCK_BYTES)
    out = folder / "floor"
    begin = time.perf_counter()
    with out.open("wb", buffering=0) as file:
        for at in range(blocks):
            file.write(block)
            if at % 4 == 3:
                os.fdatasync(file.fileno())
    took_s = time.perf_counter() - begin
    out.unlink()
    return took_s


def _process(blocks: int) -> jobs.Tree:
    block = f"block = (b'%063d\\n' % 7) * {BLOCK_BYTES // 64}"
    text = f"import os\n{block}\nfor _ in range({blocks}): os.write(1, block)"
    return {"runtime": "process", "command": [sys.executable, "-c", text]}


def _in_container(server: Home, blocks: int) -> jobs.Tree:
    flood = f"yes {7:063} | head -c {blocks * BLOCK_BYTES}"
    return {"image": busybox_image(server.path), "command": ["sh", "-c", flood]}


def _shipped_s(server: Home, task: jobs.Tree, blocks: int) -> float:
    """Seconds from the start of the attempt until the server's segments have all of it."""
    resources = {"cpu": 1, "memory": "64Mi"}
    task |= {"resources": resources, "logs": {"max_bytes": 2 * blocks * BLOCK_BYTES}}
    path = server.path / "flood.json"
    path.write_text(json.dumps({"name": "flood", "tasks": {"t": task}}))
    before = kept_bytes(server.path)
    return asyncio.run(_flood(server, path, before + blocks * BLOCK_BYTES))


async def _flood(server: Home, path: Path, until_bytes: int) -> float:
    async with Client(server.path / "tow.sock") as client:
        job = await client.submit(path)
        while kept_bytes(server.path) < until_bytes:  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(LOOK_S)
        ended_at_s = time.time()
        await job.wait()
        (element,) = (await job.task("t")).elements
    started_at = element.attempts[-1].started_at
    assert started_at is not None
    return ended_at_s - seconds(started_at)


def seconds(at: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(at).timestamp()


class Peak:
    def __init__(self) -> None:
        self.rss_mb = 0.0


@contextmanager
def peak_of(pid: int) -> Generator[Peak, None, None]:
    """The most that a process held while this was entered."""
    peak, over = Peak(), threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            status = Path(f"/proc/{pid}/status").read_text()
            peak.rss_mb = max(peak.rss_mb, int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
