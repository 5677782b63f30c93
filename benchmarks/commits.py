"""Group commit on PostgreSQL against SQLite, and the takeover of a pool there: simulated nodes, no
processes."""

from __future__ import annotations

import asyncio
import os
import resource
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests import postgres
from tests.postgres import Postgres

from benchmarks import jobs
from benchmarks.core import Drive
from benchmarks.figures import Figure, Options, Report, median_of
from towline.store.port import Store
from towline.store.postgresql import PostgresStore
from towline.store.sqlite import SqliteStore

AT_ONCE = 400
ENDS = 100, 10
"""That a commit tells of: under load, and as many as a server with 40 elements at once commits."""
_TICKS = os.sysconf("SC_CLK_TCK")


class Run:
    """What one drive took."""

    wall_s: float
    leader_cpu_s: float
    database_cpu_s: float


def run(options: Options) -> Report:
    """An array through Pool and each store in turn, as a busy server commits; then a takeover."""
    count = options.count(40_000, least=4_000)
    figures: list[Figure] = []
    server = postgres.started()
    try:
        for ends in ENDS:
            figures += _compared(server, options.pairs, count if ends == max(ENDS) else count // 4, ends)
        loads = [asyncio.run(_taken_over(server, f"load{at}", options)) for at in range(options.pairs)]
    finally:
        server.remove()
    title = f"an array of {count:,} through Pool and store, {AT_ONCE} at a time"
    method = (
        f"{options.pairs} pairs, in turn; PostgreSQL by a Unix socket with fsync; simulated nodes. "
        "Takeover: raise the term, load, build the pool"
    )
    return Report(name="commits", title=title, method=method, figures=[*figures, *_loads(loads)])


def _compared(server: Postgres, pairs: int, count: int, ends: int) -> list[Figure]:
    runs: dict[str, list[Run]] = {"SQLite": [], "PostgreSQL": []}
    for pair in range(pairs):
        for name in runs:
            runs[name].append(asyncio.run(_driven(name, server, f"run{pair} {ends}", count, ends)))
    both = zip(runs["SQLite"], runs["PostgreSQL"], strict=True)
    ratios = [lite.wall_s / other.wall_s for lite, other in both]
    figures = [
        median_of(f"{ends} ends a commit: PostgreSQL / SQLite, elements a second", ratios, "x", least=0.6)
    ]
    for name, driven in runs.items():
        figures += _figures(f"{ends}, {name}", driven, count)
    return figures


def _figures(name: str, driven: list[Run], count: int) -> list[Figure]:
    def each(of: str) -> list[float]:
        return [getattr(one, of) / count * 1_000 for one in driven]

    figures = [
        median_of(f"{name}: rate", [count / one.wall_s for one in driven], "elements/s"),
        median_of(f"{name}: CPU of the leader", each("leader_cpu_s"), "s/1,000 elements"),
    ]
    if name.endswith("PostgreSQL"):
        figures.append(median_of(f"{name}: CPU of the database", each("database_cpu_s"), "s/1,000 elements"))
    return figures


@asynccontextmanager
async def _opened(name: str, server: Postgres, part: str) -> AsyncIterator[Store]:
    with tempfile.TemporaryDirectory(prefix="tow-bench-") as folder:
        store: Store = SqliteStore(Path(folder) / "state.db")
        if name == "PostgreSQL":
            store = PostgresStore(server.own(part))
        await store.open()
        try:
            yield store
        finally:
            await store.close()


async def _driven(name: str, server: Postgres, part: str, count: int, ends: int) -> Run:
    async with _opened(name, server, part) as store:
        drive = Drive(store, int(time.time() * 1000))
        await drive.lead()
        await drive.join(*(f"n{at}" for at in range(AT_ONCE // 40)))
        taken = Run()
        cpu_s, database_s, begin = _cpu_s(), _database_cpu_s(server), time.perf_counter()
        active = await drive.submit("bench", jobs.array(count))
        while active:
            active = active[ends:] + await drive.end(active[:ends], lambda _: 0)
        taken.wall_s = time.perf_counter() - begin
        taken.leader_cpu_s, taken.database_cpu_s = _cpu_s() - cpu_s, _database_cpu_s(server) - database_s
    return taken


def _cpu_s() -> float:
    """Of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _database_cpu_s(server: Postgres) -> float:
    """Of the server and all its processes; those that have ended count by their parent."""
    total = 0
    for pid in [server.pid, *server.children()]:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        total += int(fields[11]) + int(fields[12])
        if pid == server.pid:
            total += int(fields[13]) + int(fields[14])
    return total / _TICKS


# --- takeover ---------------------------------------------------------------------------------------------
async def _taken_over(server: Postgres, part: str, options: Options) -> tuple[float, float, int, int]:
    """(until it is loaded, all of it, elements queued, elements active), of a leader that has just come."""
    queued, active = options.count(100_000, least=2_000), options.count(5_000, least=100)
    async with _opened("PostgreSQL", server, part) as store:
        drive = Drive(store, int(time.time() * 1000))
        await drive.lead()
        await drive.join(*(f"n{at}" for at in range(50)), cpu_milli=active)  # a twentieth of a CPU each
        for at in range(10):
            await drive.submit(f"bench{at}", jobs.array((queued + active) // 10, name=f"bench{at}"))
    async with _opened("PostgreSQL", server, part) as store:
        begin = time.perf_counter()
        snapshot, _ = await store.load("default", await store.raise_term("default"))
        loaded_s = time.perf_counter() - begin
        again = Drive(store, drive.now_ms)
        begin = time.perf_counter()
        await again.lead()
        total_s = time.perf_counter() - begin
        return loaded_s, total_s, sum(task.queued for task in snapshot.tasks), again.pool.active_count


def _loads(loads: list[tuple[float, float, int, int]]) -> list[Figure]:
    note = f"{loads[0][2]:,} queued, {loads[0][3]:,} active"
    return [
        median_of("takeover on PostgreSQL", [one[1] for one in loads], "s", most=2.0, note=note),
        median_of("takeover on PostgreSQL: the rows alone", [one[0] for one in loads], "s"),
    ]
