"""Whether pools disturb each other: two servers on one PostgreSQL lead a pool each, with simulated nodes."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from tests.postgres import Postgres, started

from benchmarks import jobs
from benchmarks.clusters.joined import start_server
from benchmarks.clusters.simulated import RUN_S, enrolled
from benchmarks.figures import Figure, Options, Report, median_of
from benchmarks.home import PATIENCE_S, Home, cpu_of, fresh_home
from towline.client import Client, Job
from towline.server.vault import KEY_FILE
from towline.store import make_store

POOLS = ("default", "east")
NODES = 20
"""Of each pool. Each runs 20 elements at a time."""
ELEMENTS = 20_000
LOCK_MS = 2
"""Who waits for a lock longer than this is counted."""
WAITED = "still waiting for"
SPIN = "while True: pass"


class Two:
    """The servers, by the pool that each leads."""

    def __init__(self, servers: dict[str, Home], database: Postgres) -> None:
        self.servers = servers
        self.database = database
        self.log = database.folder / "log"

    def waits(self) -> int:
        """How many have waited for locks since the beginning."""
        return self.log.read_text().count(WAITED)

    def database_cpu_s(self) -> float:
        """Of the processes that serve connections now."""
        return sum(sum(cpu_of(pid)) for pid in [self.database.pid, *self.database.children()])


class Taken:
    """What one run of the measured pool took, in CPU seconds for 1,000 elements."""

    leader_s: float
    database_s: float
    waits: int


def run(options: Options) -> Report:
    """The CPU of one pool's leader: alone, beside the other pool, and beside a spin loop, in turn."""
    count = options.count(ELEMENTS, least=2_000)
    taken: dict[str, list[Taken]] = {"alone": [], "beside the other pool": [], "beside a spin loop": []}
    with _two(options.count(NODES, least=4)) as two:
        _measured(two, "alone", count // 4)  # what is loaded and made once
        for _ in range(options.pairs):
            for how, runs in taken.items():
                runs.append(_measured(two, how, count))
    figures = [
        median_of(f"{how}: CPU of the leader", [one.leader_s for one in runs], "s/1,000 elements")
        for how, runs in taken.items()
    ]
    alone = taken.pop("alone")
    for how, runs in taken.items():
        ratios = [one.leader_s / base.leader_s for one, base in zip(runs, alone, strict=True)]
        most = 1.1 if "pool" in how else None
        figures.append(median_of(f"{how}: of what it takes alone", ratios, "x", most=most))
    both = taken["beside the other pool"]
    waits = sum(one.waits for one in both)
    figures += [
        median_of("alone: CPU of PostgreSQL", [one.database_s for one in alone], "s/1,000 elements"),
        Figure(name=f"waits for locks over {LOCK_MS} ms, both at work", value=waits, most=0),
    ]
    method = (
        f"two servers on one PostgreSQL, a pool each with {NODES} simulated nodes over TLS; arrays of "
        f"{count:,} elements of {RUN_S} s, 400 at a time; {options.pairs} rounds, in turn, all on one machine"
    )
    return Report(name="pools", title="two pools on two servers", method=method, figures=figures)


# --- one run ----------------------------------------------------------------------------------------------
def _measured(two: Two, how: str, count: int) -> Taken:
    """The first pool's array from its submission to its end; the other is at work all the while, where it
    is to be."""
    return asyncio.run(_run(two, how, count))


async def _run(two: Two, how: str, count: int) -> Taken:
    spinning: asyncio.subprocess.Process | None = None
    own, other = (two.servers[pool] for pool in POOLS)
    async with Client(own.path / "tow.sock") as client, Client(other.path / "tow.sock") as beside:
        work: Job | None = None
        if "pool" in how:
            work = await beside.submit({**jobs.array(100 * count), "pool": POOLS[1]})
            await _until_active(work)
        elif "spin" in how:
            spinning = await asyncio.create_subprocess_exec(sys.executable, "-c", SPIN)
        try:
            taken = await _taken(two, client, own.pid("server"), count)
        finally:
            if spinning is not None:
                spinning.kill()
                await spinning.wait()
            if work is not None:
                await work.cancel(kill=True)
                await work.wait()
    return taken


async def _taken(two: Two, client: Client, pid: int, count: int) -> Taken:
    taken = Taken()
    waits, leader_s, database_s = two.waits(), cpu_of(pid)[0], two.database_cpu_s()
    job = await client.submit({**jobs.array(count), "pool": POOLS[0]})
    view = await job.wait()
    if view.state != "succeeded":
        raise RuntimeError(f"the array is {view.state}: {view.message}")
    taken.leader_s = (cpu_of(pid)[0] - leader_s) / count * 1000
    taken.database_s = (two.database_cpu_s() - database_s) / count * 1000
    taken.waits = two.waits() - waits
    return taken


async def _until_active(job: Job) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not (await job.view()).counts.get("active"):  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.1)


# --- the cluster ------------------------------------------------------------------------------------------
@contextmanager
def _two(nodes: int) -> Generator[Two, None, None]:
    """Each server leads one pool when this yields, and the nodes of both are linked."""
    with ExitStack() as stack:
        database = started(log_lock_waits="on", deadlock_timeout=f"{LOCK_MS}ms")
        stack.callback(database.remove)
        homes = [stack.enter_context(fresh_home()) for _ in POOLS]
        for at, home in enumerate(homes):
            home.env |= {
                "TOWLINE_STORE_URL": database.url,
                "TOWLINE_OBJECT_STORE": f"file://{homes[0].path}/objects",
                "TOWLINE_SHARED_FILES": "true",
                "TOWLINE_ADDRESS": "127.0.0.1",
            }
            if at:
                shutil.copy(homes[0].path / KEY_FILE, home.path / KEY_FILE)
            start_server(home)
        _create(homes[0])
        for pool in POOLS:
            stack.enter_context(_fleet(database.url, homes, pool, nodes))
        yield Two(_leaders(homes), database)


def _create(home: Home) -> None:
    async def create() -> None:
        async with Client(home.path / "tow.sock") as client:
            await client.request("POST", "/v1/pools", body={"pool": POOLS[1]})

    asyncio.run(create())


@contextmanager
def _fleet(url: str, homes: Sequence[Home], pool: str, count: int) -> Generator[None, None, None]:
    """A pool's nodes, in a process of their own."""
    store = make_store(url, homes[0].path)
    members = asyncio.run(enrolled(store, homes[0].path, count, pool))
    file = homes[0].path / f"members-{pool}"
    file.write_bytes(msgspec.msgpack.encode(members))
    server = f"https://{homes[0].env['TOWLINE_LISTEN']}"
    command = [sys.executable, "-m", "benchmarks.clusters.simulated", server, str(file)]
    top = Path(__file__).parent.parent.parent
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=top)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"the nodes of the pool {pool} are not linked")
        yield
    finally:
        process.kill()
        process.communicate()


def _leaders(homes: Sequence[Home]) -> dict[str, Home]:
    """By pool; once each server leads one."""
    by_address = {home.env["TOWLINE_LISTEN"]: home for home in homes}

    async def look() -> dict[str, Home]:
        async with asyncio.timeout(PATIENCE_S), Client(homes[0].path / "tow.sock") as client:
            while True:
                views: list[dict[str, Any]] = json.loads(await client.request("GET", "/v1/pools"))["pools"]
                found = {view["pool"]: by_address.get(view["address"]) for view in views if view["nodes"]}
                led = {pool: home for pool, home in found.items() if home is not None}
                if len(set(led)) == len({id(home) for home in led.values()}) == len(POOLS):
                    return led
                await asyncio.sleep(0.2)

    return asyncio.run(look())
