"""A pool with a million elements against an empty one: acceptance, restart, memory, rate, cancel, pages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from benchmarks import jobs
from benchmarks.core import Drive
from benchmarks.figures import Figure, Options, Report, median_of
from benchmarks.home import Home, fresh_home
from towline.client import Client, Job
from towline.store.sqlite import SqliteStore

T = TypeVar("T")

JOB = "bench"
NODES = [f"sim-{at}" for at in range(20)]
WARM = 500
"""Elements that run before the clock starts."""
FURTHER = 1_000
PAGES = 20
POLL_S = 0.25


class Life:
    """One life of a server: how it started, what it holds, how fast it then ran."""

    start_s: float
    start_cpu_s: float
    loaded_bytes: int
    after_bytes: int
    rate: float
    cpu_us: float


def run(options: Options) -> Report:
    """Fill one home through the core, leave one empty, and start a server on each in turn."""
    size = options.count(1_000_000, least=20_000)
    ended = options.count(300_000, least=6_000)
    with fresh_home() as empty, fresh_home() as full:
        begin = time.perf_counter()
        asyncio.run(_fill(full, size, ended))
        filled_s = time.perf_counter() - begin
        accepted = _accepted(empty, size, options.pairs)
        lives = [(_live(empty, size, fill=True), _live(full, size)) for _ in range(options.pairs)]
        pages, cancel = _with_server(full, lambda client: _pages_and_cancel(client, ended))
    figures = [
        median_of("acceptance through the API", accepted, "s", most=1.0),
        *_compared([life for life, _ in lives], [life for _, life in lives]),
        *cancel,
        *pages,
        Figure(name=f"ending {ended:,} through the core", value=filled_s, unit="s"),
    ]
    title = f"an array of {size:,}, {ended:,} of it ended (every tenth failed), against an empty pool"
    method = (
        f"{options.pairs} pairs, each a new server on either home; "
        f"{FURTHER:,} further elements, after {WARM} that are not measured"
    )
    return Report(name="million", title=title, method=method, figures=figures)


# --- filling ------------------------------------------------------------------------------------------
async def _fill(home: Home, size: int, ended: int) -> None:
    """Write what a leader would have written: the pool with its simulated nodes commits into the home."""
    store = SqliteStore(home.path / "state.db")
    await store.open()
    drive = Drive(store, int(time.time() * 1000) - 600_000)
    await drive.lead()
    await drive.submit(JOB, jobs.array(size, name="million"))
    active = await drive.join(*NODES, cpu_milli=2_500)  # 50 elements each: 1,000 a commit
    done = 0
    while done + len(active) < ended:
        done += len(active)
        active = await drive.end(active, _every_tenth_fails)
    await drive.leave(*NODES)
    await drive.end(active, _every_tenth_fails)
    await drive.forget_nodes()
    await store.close()


def _every_tenth_fails(index: int) -> int:
    return int(index % 10 == 9)


# --- measuring ----------------------------------------------------------------------------------------
def _with_server(home: Home, ask: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    async def asked() -> T:
        async with Client(home.path / "tow.sock") as client:
            return await ask(client)

    home.start_server()
    try:
        return asyncio.run(asked())
    finally:
        home.stop()


def _accepted(home: Home, size: int, pairs: int) -> list[float]:
    async def ask(client: Client) -> list[float]:
        times: list[float] = []
        for _ in range(pairs + 1):
            begin = time.perf_counter()
            job = await client.submit(jobs.array(size))
            times.append(time.perf_counter() - begin)
            await job.cancel(kill=True)
            await job.wait()
        return times[1:]

    return _with_server(home, ask)


def _live(home: Home, size: int, *, fill: bool = False) -> Life:
    """Start a server, let it run further elements (of a new array with ``fill``), stop it."""
    life = Life()
    life.start_s = home.start_server()
    life.start_cpu_s = home.cpu_s()["server"]
    life.loaded_bytes = home.memory_bytes("server")
    asyncio.run(_further(home, life, size, fill))
    home.stop()
    return life


async def _further(home: Home, life: Life, size: int, fill: bool) -> None:
    async with Client(home.path / "tow.sock") as client:
        job = await client.submit(jobs.array(2 * (WARM + FURTHER))) if fill else await client.job(JOB)
        first = 0 if fill else await _ended(job)
        cpu_s = home.cpu_s()["server"]
        while (count := await _ended(job)) < first + WARM + FURTHER:
            await job.wait(timeout_s=POLL_S)
        life.cpu_us = (home.cpu_s()["server"] - cpu_s) / (count - first) * 1e6
        life.after_bytes = home.memory_bytes("server")
        life.rate = await _rate(job, first)
        if fill:
            await job.cancel()
            await job.wait()


async def _ended(job: Job) -> int:
    counts = (await job.view()).counts
    return counts["succeeded"] + counts["failed"]


async def _rate(job: Job, first: int) -> float:
    """Elements a second, by the times at which they ended."""
    cursor = str(first - 1) if first else None
    page = await job.task("t", cursor=cursor, limit=WARM + FURTHER)
    times = sorted(at for e in page.elements for a in e.attempts if (at := a.finished_at) is not None)
    return (len(times) - WARM) / jobs.seconds_between(times[WARM - 1], times[-1])


def _compared(empty: list[Life], full: list[Life]) -> list[Figure]:
    def both(of: Callable[[Life], float], how: Callable[[float, float], float]) -> list[float]:
        return [how(of(one), of(other)) for one, other in zip(full, empty, strict=True)]

    def more(one: float, other: float) -> float:
        return one - other

    def ratio(one: float, other: float) -> float:
        return one / other

    mb = 1e-6
    return [
        median_of("start to ready, beyond an empty pool's", both(lambda at: at.start_s, more), "s", most=2.0),
        median_of("start to ready", [life.start_s for life in full], "s"),
        median_of("start to ready, empty", [life.start_s for life in empty], "s"),
        median_of("CPU of a start", [life.start_cpu_s for life in full], "s"),
        median_of("CPU of a start, empty", [life.start_cpu_s for life in empty], "s"),
        median_of("memory more than empty", both(lambda at: at.after_bytes * mb, more), "MB", most=50.0),
        median_of("memory more than empty, just loaded", both(lambda at: at.loaded_bytes * mb, more), "MB"),
        median_of("memory of the server", [life.after_bytes * mb for life in full], "MB"),
        median_of("rate of further elements / empty", both(lambda at: at.rate, ratio), "x", least=0.9),
        median_of("rate of further elements", [life.rate for life in full], "/s"),
        median_of("CPU of the server / empty", both(lambda at: at.cpu_us, ratio), "x"),
        median_of("CPU of the server", [life.cpu_us for life in full], "us/element"),
    ]


async def _pages_and_cancel(client: Client, ended: int) -> tuple[list[Figure], list[Figure]]:
    job = await client.job(JOB)
    pages = [
        await _page(job, "a page, the API's default"),
        await _page(job, "a page in the middle", cursor=str(ended // 2)),
        await _page(job, "a page as `tow tasks` asks", limit=50),
        await _page(job, "`tow tasks --state failed`", limit=50, state="failed"),
        await _page(job, "`tow tasks --state queued`", limit=50, state="queued"),
    ]
    begin = time.perf_counter()
    await job.cancel()
    answered_s = time.perf_counter() - begin
    await job.wait()
    ended_s = time.perf_counter() - begin
    return pages, [
        Figure(name="cancel, until answered", value=answered_s, unit="s", most=1.0),
        Figure(name="cancel, until the job has ended", value=ended_s, unit="s"),
    ]


async def _page(job: Job, name: str, **query: Any) -> Figure:
    times: list[float] = []
    for _ in range(PAGES):
        begin = time.perf_counter()
        page = await job.task("t", **query)
        times.append((time.perf_counter() - begin) * 1000)
    return median_of(name, times, "ms", most=50.0, note=f"{len(page.elements):,} elements")
