"""The scheduling core at scale, without processes: decisions, commits, and passes over full pools.

Four figures: elements assigned and committed a second (SQLite, full sync) in many jobs and in one
array, a pass after one exit with a million elements queued, and one placement on a pool that is
95 % full.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.core import Drive
from benchmarks.figures import Options, Report, median_of
from towline.core.commands import AttemptUpdate, NodeUp, SetQueue, StartOrder, Submit, attempt_id
from towline.core.commands import Report as Ended
from towline.core.rows import NodeRow
from towline.model.job import Array, JobSpec, Resources, TaskSpec
from towline.store.memory import MemoryStore
from towline.store.port import Store
from towline.store.sqlite import SqliteStore

CORES = 16
SHAPES = 50
JOBS_A_BATCH = 250
"""Submissions that one commit carries: what a leader's group commit gathers under such a load."""


def node(name: str) -> NodeRow:
    return NodeRow(
        id=name,
        name=name,
        instance=f"{name}-1",
        state="ready",
        cpu_milli=CORES * 1000,
        memory_bytes=64 * 2**30,
        pids=100_000,
        labels={},
        runtimes={"process": None},
    )


def spec(name: str, size: int, shape: int = 0, queue: str = "default", expect_s: int = 0) -> JobSpec:
    """A job of one array of one-core elements; ``shape`` tells kinds of elements apart by their memory."""
    task = TaskSpec(
        runtime="process",
        command=("true",),
        resources=Resources(cpu_milli=1000, memory_bytes=(256 + shape) * 2**20, pids=16),
        array=Array(first=0, last=size - 1),
        expect_ms=expect_s * 1000 or None,
    )
    return JobSpec(name=name, tasks={"work": task}, queue=queue)


def submit(name: str, size: int, shape: int = 0, queue: str = "default") -> Submit:
    return Submit(job=name, namespace="default", spec=spec(name, size, shape, queue))


class Measured(NamedTuple):
    """Elements a second of each run; CPU milliseconds of each pass, and of each placement, rising.

    A pass waits for nothing, so its CPU time is what it takes on a machine that does nothing else.
    """

    many: list[float]
    one: list[float]
    passes: list[float]
    placements: list[float]


def measured(options: Options) -> Measured:
    many = [asyncio.run(_rate(_jobs(options), options)) for _ in range(options.pairs)]
    one = [asyncio.run(_rate(_array(options), options)) for _ in range(options.pairs)]
    passes, placements = asyncio.run(_passes(options)), asyncio.run(_placements(options))
    return Measured(many, one, sorted(passes), sorted(placements))


def run(options: Options) -> Report:
    """All four figures."""
    many, one, passes, placements = measured(options)
    p99 = placements[len(placements) * 99 // 100]
    figures = [
        median_of("50 shapes in jobs of 10: assigned and committed", many, "elements/s", least=4_000),
        median_of("one array: assigned and committed", one, "elements/s", least=15_000),
        median_of("a pass after one exit, 1,000,000 queued", passes, "ms"),
        median_of("the slowest of those passes", [passes[-1]], "ms", most=20),
        median_of("one placement, 95 % full: median", placements, "ms"),
        median_of("one placement, 95 % full: p99", [p99], "ms", most=3),
    ]
    title = "the scheduling core at scale: 5,000 and 10,000 nodes of 16 cores"
    method = (
        f"{options.pairs} runs; simulated nodes, no processes; SQLite with full sync for the rates; "
        "CPU time of passes and placements"
    )
    return Report(name="scheduler-core", title=title, method=method, figures=figures)


def _jobs(options: Options) -> list[list[Submit]]:
    """Jobs of ten elements each, in batches; their shapes take turns."""
    count = options.count(5_000, least=100)
    jobs = [submit(f"job{at}", 10, at % SHAPES) for at in range(count)]
    return [jobs[at : at + JOBS_A_BATCH] for at in range(0, count, JOBS_A_BATCH)]


def _array(options: Options) -> list[list[Submit]]:
    return [[submit("array", options.count(50_000, least=1_000))]]


async def _rate(batches: list[list[Submit]], options: Options) -> float:
    """Elements a second from their submission to the commit that assigns them."""
    with tempfile.TemporaryDirectory(prefix="tow-bench-") as folder:
        drive = await _pool(SqliteStore(Path(folder) / "state.db"), options.count(5_000, least=100))
        gc.collect()
        begin = time.perf_counter()
        placed = 0
        for batch in batches:
            placed += len(await drive.step(*batch))
        took_s = time.perf_counter() - begin
        await drive.store.close()
    return placed / took_s


async def _pool(store: Store, nodes: int) -> Drive:
    await store.open()
    drive = Drive(store, int(time.time() * 1000))
    await drive.lead()
    await drive.step(*(NodeUp(node=node(f"n{at}")) for at in range(nodes)))
    return drive


async def _passes(options: Options) -> list[float]:
    """Milliseconds of passes, each after one exit, with 1,000 arrays of 1,000 elements queued."""
    nodes, arrays = options.count(10_000, least=100), options.count(1_000, least=20)
    drive = await _pool(MemoryStore(), nodes)
    queues = max(1, arrays // 10)
    await drive.step(*(SetQueue(name=f"q{at}", weight_milli=1000 + at) for at in range(queues)))
    running = await drive.step(submit("running", nodes * CORES))
    jobs = [submit(f"job{at}", 1_000, at % SHAPES, f"q{at % queues}") for at in range(arrays)]
    await drive.step(*jobs)
    return list(_exits(drive, running[: options.count(300, least=50)]))


def _exits(drive: Drive, orders: Sequence[object]) -> Iterator[float]:
    for order in orders:
        assert isinstance(order, StartOrder)
        drive.now_ms += 20
        update = AttemptUpdate(
            attempt=attempt_id((order.job, order.task, order.index, order.number)),
            state="finished",
            reason="exited",
            exit_code=0,
            finished_at=drive.now_ms,
        )
        drive.pool.apply(Ended(node=order.node, updates=(update,)), drive.now_ms)
        begin = time.thread_time()
        drive.pool.schedule(drive.now_ms)
        yield (time.thread_time() - begin) * 1000
        _, placed = drive.pool.collect()
        assert len(placed) == 1, "the pool is full: one exit makes room for one element"


async def _placements(options: Options) -> list[float]:
    """Milliseconds of passes that place one element each on a pool of which 95 % is held."""
    nodes = options.count(10_000, least=100)
    drive = await _pool(MemoryStore(), nodes)
    await drive.step(submit("fill", nodes * CORES * 95 // 100))
    took_ms: list[float] = []
    for at in range(min(options.count(2_000, least=100), nodes * CORES // 40)):
        drive.now_ms += 1
        drive.pool.apply(submit(f"one{at}", 1, at % SHAPES), drive.now_ms)
        begin = time.thread_time()
        drive.pool.schedule(drive.now_ms)
        took_ms.append((time.thread_time() - begin) * 1000)
        drive.pool.collect()
    return took_ms
