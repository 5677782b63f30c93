"""Whether pools disturb each other: two servers on one PostgreSQL lead a pool each, with simulated nodes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager

from tests.postgres import Postgres

from benchmarks import jobs
from benchmarks.clusters.shared_store import database_cpu_s, make_pools, nodes, servers
from benchmarks.clusters.simulated import RUN_S
from benchmarks.figures import Figure, Options, Report, median_of
from benchmarks.home import PATIENCE_S, Home, cpu_of
from towline.client import Client, Job

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
        return database_cpu_s(self.database)


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
def _two(count: int) -> Generator[Two, None, None]:
    """Each server leads one pool when this yields, and the nodes of both are linked."""
    settings = {"log_lock_waits": "on", "deadlock_timeout": f"{LOCK_MS}ms"}
    with servers(len(POOLS), **settings) as (homes, database), ExitStack() as stack:
        make_pools(homes[0], POOLS[1])
        for pool in POOLS:
            stack.enter_context(nodes(database, homes, count, pool))
        yield Two(asyncio.run(_leaders(homes)), database)


async def _leaders(homes: Sequence[Home]) -> dict[str, Home]:
    """By pool; once each server leads one."""
    by_address = {home.env["TOWLINE_LISTEN"]: home for home in homes}
    async with asyncio.timeout(PATIENCE_S), Client(homes[0].path / "tow.sock") as client:
        while True:
            views = await client.pools()
            found = {view.pool: by_address[view.address] for view in views if view.address and view.nodes}
            if len(found) == len({id(home) for home in found.values()}) == len(POOLS):
                return found
            await asyncio.sleep(0.2)
