"""What a cluster's parts cost (an element, a heartbeat, an event that is told, a node, a pool), and from that
what a large one needs: the figures of docs/SCALE.md."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from msgspec import Struct
from tests.postgres import Postgres

from benchmarks import jobs
from benchmarks.clusters.shared_store import database_cpu_s, make_pools, nodes, servers
from benchmarks.figures import Figure, Options, Report
from benchmarks.home import PATIENCE_S, Home, cpu_of
from towline.client import Client

NODES, ELEMENTS, READERS, POOLS = 2_000, 40_000, 20, 24
FEW, FEW_AT_ONCE = 2_000, 54
"""So many elements, so many of them at a time: as a pool of the cluster that is worked out has them."""
BEAT_S = 2.0
IDLE_S = 20.0
SETTLE_S = 5.0
SIZES = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn, pg_database_size('towline')"


class Costs(Struct, kw_only=True):
    """CPU in seconds, memory and disk in bytes: each of one element, event, heartbeat, node or pool."""

    element_cpu: float
    element_database_cpu: float
    element_log: float
    element_disk: float
    element_events: float
    few_cpu: float
    """Of an element of which only some hundred come in a second, so that commits carry few."""
    few_database_cpu: float
    few_log: float
    told_cpu: float
    heartbeat_cpu: float
    node_memory: float
    pool_cpu: float
    """Each second, without nodes or work."""
    pool_database_cpu: float
    pool_memory: float
    server_memory: float


class Need(Struct, frozen=True):
    """A cluster that is worked out: elements last ``lasts_s``, one to a CPU of each node."""

    nodes: int = 100_000
    pools: int = 50
    cpus: int = 16
    lasts_s: float = 300.0

    @property
    def elements_a_s(self) -> float:
        return self.nodes * self.cpus / self.lasts_s


class _Used(Struct):
    """So far: CPU seconds of the server and the database, bytes of its log and its files."""

    at_s: float
    server: float
    database: float
    log: int
    disk: int


def run(options: Options) -> Report:
    """Measured on one server with PostgreSQL and simulated nodes; then worked out."""
    count, elements = options.count(NODES, least=20), options.count(ELEMENTS, least=2_000)
    pools = options.count(POOLS, least=4)
    with servers(1) as ((home,), database):
        costs = _measured(home, database, count, elements, pools)
    method = (
        f"one server and PostgreSQL, {count} simulated nodes over TLS with a heartbeat each {BEAT_S:g} s, an "
        f"array of {elements:,} elements, again with {READERS} readers of its events, and {pools} more pools"
    )
    title = "what a cluster's parts cost, and what 100,000 nodes need"
    return Report(name="scale", title=title, method=method, figures=[*_costs(costs), *_needs(costs)])


def _measured(home: Home, database: Postgres, count: int, elements: int, pools: int) -> Costs:
    bare, bare_memory = _idle(home, database), home.memory_bytes("server")
    with nodes(database, [home], count):
        time.sleep(SETTLE_S)
        idle, memory = _idle(home, database), home.memory_bytes("server")
        asyncio.run(_array(home, elements // 10))
        few = _array_used(home, database, FEW, at_once=FEW_AT_ONCE)
        plain = _array_used(home, database, elements)
        told = _array_used(home, database, elements, readers=READERS)
    events = _newest(database) / (2 * elements + elements // 10 + FEW)
    without, without_memory = _idle(home, database), home.memory_bytes("server")
    make_pools(home, *(f"p{number}" for number in range(pools)))
    with_pools = _idle(home, database)
    return Costs(
        element_cpu=plain.server / elements,
        element_database_cpu=plain.database / elements,
        element_log=plain.log / elements,
        element_disk=plain.disk / elements,
        element_events=events,
        few_cpu=few.server / FEW,
        few_database_cpu=few.database / FEW,
        few_log=few.log / FEW,
        told_cpu=max(0.0, told.server - plain.server) / (events * elements * READERS),
        heartbeat_cpu=(idle.server - bare.server) / (count * IDLE_S / BEAT_S),
        node_memory=(memory - bare_memory) / count,
        pool_cpu=(with_pools.server - without.server) / IDLE_S / pools,
        pool_database_cpu=(with_pools.database - without.database) / IDLE_S / pools,
        pool_memory=(home.memory_bytes("server") - without_memory) / pools,
        server_memory=bare_memory,
    )


def _used(home: Home, database: Postgres) -> _Used:
    log, disk = database.run(SIZES).split("|")
    return _Used(
        time.monotonic(), cpu_of(home.pid("server"))[0], database_cpu_s(database), int(log), int(disk)
    )


def _between(before: _Used, after: _Used) -> _Used:
    return _Used(
        after.at_s - before.at_s,
        after.server - before.server,
        after.database - before.database,
        after.log - before.log,
        after.disk - before.disk,
    )


def _idle(home: Home, database: Postgres) -> _Used:
    before = _used(home, database)
    time.sleep(IDLE_S)
    return _between(before, _used(home, database))


def _array_used(home: Home, database: Postgres, elements: int, readers: int = 0, at_once: int = 0) -> _Used:
    """What an array takes beyond what the same time takes without one."""
    rest = _idle(home, database)
    before = _used(home, database)
    asyncio.run(_array(home, elements, readers, at_once))
    used = _between(before, _used(home, database))
    used.server -= rest.server / IDLE_S * used.at_s
    used.database -= rest.database / IDLE_S * used.at_s
    return used


async def _array(home: Home, elements: int, readers: int = 0, at_once: int = 0) -> None:
    tree = jobs.array(elements)
    if at_once:
        tree["tasks"]["t"]["limit"] = {"key": "few", "max": at_once}
    async with Client(home.path / "tow.sock") as client:
        job = await client.submit(tree)
        async with _reading(home, job.id, readers):
            async with asyncio.timeout(PATIENCE_S * 10):
                view = await job.wait()
    if view.state != "succeeded":
        raise RuntimeError(f"the array is {view.state}: {view.message}")


@asynccontextmanager
async def _reading(home: Home, job: str, readers: int) -> AsyncIterator[None]:
    """So many follow the job's events to its end."""
    transport = httpx2.AsyncHTTPTransport(uds=os.fspath(home.path / "tow.sock"))
    async with httpx2.AsyncClient(transport=transport, base_url="http://towline", timeout=None) as http:

        async def follow() -> int:
            async with http.stream("GET", f"/v1/jobs/{job}/events") as events:
                return sum([len(part) async for part in events.aiter_bytes()])

        following = [asyncio.create_task(follow()) for _ in range(readers)]
        yield
        if not all(await asyncio.gather(*following)):
            raise RuntimeError("a reader of events was told nothing")


def _newest(database: Postgres) -> int:
    """The number of the pool's newest event."""
    return int(database.run("SELECT event_no FROM pool WHERE id = 'default'"))


# --- how it is told ---------------------------------------------------------------------------------------
def _costs(costs: Costs) -> list[Figure]:
    micro, kib = 1e6, 1 / 1024
    rows = (
        ("an element of thousands a second: CPU of the server", costs.element_cpu * micro, "µs"),
        ("... CPU of PostgreSQL", costs.element_database_cpu * micro, "µs"),
        ("... PostgreSQL's log", costs.element_log, "bytes"),
        ("... on disk", costs.element_disk, "bytes"),
        ("... events", costs.element_events, ""),
        ("an element of a hundred a second: CPU of the server", costs.few_cpu * micro, "µs"),
        ("... CPU of PostgreSQL", costs.few_database_cpu * micro, "µs"),
        ("... PostgreSQL's log", costs.few_log, "bytes"),
        ("an event told to one reader: CPU of the server", costs.told_cpu * micro, "µs"),
        ("a heartbeat: CPU of the server", costs.heartbeat_cpu * micro, "µs"),
        ("a node: memory of the server", costs.node_memory * kib, "KiB"),
        ("a pool without work: CPU of the server, of a core", costs.pool_cpu * 100, "%"),
        ("a pool without work: CPU of PostgreSQL, of a core", costs.pool_database_cpu * 100, "%"),
        ("a pool: memory of the server", costs.pool_memory * kib, "KiB"),
    )
    return [Figure(name=name, value=value, unit=unit) for name, value, unit in rows]


def _needs(costs: Costs, need: Need | None = None) -> list[Figure]:
    """Cores, memory, log and disk of the whole cluster."""
    need = need or Need()
    rate, beats = need.elements_a_s, need.nodes / BEAT_S
    parts = {
        "elements": rate * costs.few_cpu,
        "heartbeats": beats * costs.heartbeat_cpu,
        "pools": need.pools * costs.pool_cpu,
    }
    memory = need.nodes * costs.node_memory + need.pools * costs.pool_memory
    what = f"{need.nodes:,} nodes in {need.pools} pools, {rate:,.0f} elements/s"
    rows = (
        *((f"{what}: cores for {name}", value, "") for name, value in parts.items()),
        (f"{what}: cores of servers in all", sum(parts.values()), ""),
        (f"{what}: cores of a pool's leader", sum(parts.values()) / need.pools, ""),
        (f"{what}: cores of PostgreSQL", rate * costs.few_database_cpu, ""),
        (f"{what}: PostgreSQL's log", rate * costs.few_log / 2**20, "MiB/s"),
        (f"{what}: on disk", rate * costs.element_disk * 86_400 / 2**30, "GiB/day"),
        (f"{what}: memory of servers", memory / 2**30, "GiB"),
    )
    return [Figure(name=name, value=value, unit=unit) for name, value, unit in rows]
