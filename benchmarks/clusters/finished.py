"""A million finished elements in the store against an empty one: what an element costs, and ``tow jobs``."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path

from benchmarks import jobs
from benchmarks.core import Drive
from benchmarks.figures import Figure, Options, Report, median_of
from benchmarks.home import Home, fresh_home, spent
from towline.client import Client
from towline.store.sqlite import SqliteStore

EACH = 1_000
"""Elements of each job that has finished."""
FIRST = "done-000000"
NODES = [f"sim-{at}" for at in range(20)]
RUN = 5_000
LOOKS = 20
COMMANDS = 5
OURS = ("server", "agent", "supervisor")


def run(options: Options) -> Report:
    """Fill one home through the core, leave one empty, and let both run the same array in turn."""
    count, elements = options.count(1_000, least=10), options.count(RUN, least=500)
    with fresh_home() as empty, fresh_home() as full:
        asyncio.run(_fill(full.path, count))
        begin = time.perf_counter()
        full.start_server()
        started_s = time.perf_counter() - begin
        empty.start_server()
        costs = _costs(empty, full, elements, options.pairs)
        asked = asyncio.run(_asked(full))
        whole = [full.tow("jobs") for _ in range(COMMANDS)]
        beside = [empty.tow("jobs") for _ in range(COMMANDS)]
        kept_mb = (full.path / "state.db").stat().st_size / 1e6
    figures = [
        median_of("CPU an element, full / empty", _ratios(costs, "ours"), "x", most=1.05),
        median_of("CPU of the server an element, full / empty", _ratios(costs, "server"), "x"),
        median_of("rate, full / empty", _ratios(costs, "rate"), "x"),
        median_of("CPU an element, full", [one["ours"] for one in costs["full"]], "us"),
        median_of("what `tow jobs` asks of the API", asked, "ms", most=50),
        median_of("`tow jobs`, the whole command", [one.wall_s * 1000 for one in whole], "ms"),
        median_of("`tow jobs`, the whole command, empty", [one.wall_s * 1000 for one in beside], "ms"),
        median_of("`tow jobs`, CPU of the whole command", [one.cpu_s * 1000 for one in whole], "ms"),
        Figure(name="start of the server, full", value=started_s, unit="s"),
        Figure(name="the store's file", value=kept_mb, unit="MB"),
    ]
    title = f"{count * EACH:,} finished elements of {count:,} jobs in the store, against an empty one"
    method = (
        f"an array of {elements:,} x true through `tow run` on either in turn, {options.pairs} pairs; CPU of "
        "server, agent and supervisor without the elements' own"
    )
    return Report(name="finished", title=title, method=method, figures=figures)


async def _fill(home: Path, count: int) -> None:
    """What a leader would have written: one job through the core, and copies of its rows."""
    store = SqliteStore(home / "state.db")
    await store.open()
    drive = Drive(store, int(time.time() * 1000) - 600_000)
    await drive.lead()
    await drive.join(*NODES, cpu_milli=EACH // len(NODES) * 50)
    active = await drive.submit(FIRST, jobs.array(EACH, name="done"))
    while active:
        active = await drive.end(active, lambda _: 0)
    await drive.leave(*NODES)
    await drive.forget_nodes()
    await store.close()
    with contextlib.closing(sqlite3.connect(home / "state.db")) as connection:
        _copy(connection, count - 1)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _copy(connection: sqlite3.Connection, count: int) -> None:
    """So many jobs more like the first, each with rows, events and a number of its own."""
    ask = "SELECT min(number), max(number) + 1 - min(number) FROM event WHERE job = ?"
    begin, span = connection.execute(ask, (FIRST,)).fetchone()
    (last,) = connection.execute("SELECT event_no FROM pool").fetchone()
    for table, key in {"job": "id", "spec": "job", "task": "job", "element": "job", "attempt": "job",
                       "event": "job"}.items():  # fmt: skip
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        renewed = {key: ":id", "seq": ":n + seq"} if table == "job" else {key: ":id"}
        if table == "event":
            renewed["number"] = f"{last + 1 - begin} + {span} * (:n - 1) + number"
        chosen = ", ".join(renewed.get(column, f'"{column}"') for column in columns)
        copies = ({"id": f"done-{n:06}", "n": n, "first": FIRST} for n in range(1, count + 1))
        connection.executemany(
            f"INSERT INTO {table} SELECT {chosen} FROM {table} WHERE {key} = :first", copies
        )
    connection.execute("UPDATE pool SET event_no = ?, job_seq = job_seq + ?", (last + span * count, count))
    connection.commit()


def _costs(empty: Home, full: Home, elements: int, pairs: int) -> dict[str, list[dict[str, float]]]:
    """Of each run: CPU us an element by process, those of ours together, and elements a second."""
    homes = {"empty": empty, "full": full}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in homes}
    for home in homes.values():
        home.tow("run", jobs.written(jobs.array(EACH, name="warm"), home.path))
    for at in range(pairs):
        for name in sorted(homes, reverse=bool(at % 2)):
            home = homes[name]
            before = home.cpu_s()
            done = home.tow("run", jobs.written(jobs.array(elements), home.path))
            each = {role: s / elements * 1e6 for role, s in spent(before, home.cpu_s()).items()}
            found[name].append(
                each | {"ours": sum(each[role] for role in OURS), "rate": elements / done.wall_s}
            )
    return found


def _ratios(costs: dict[str, list[dict[str, float]]], what: str) -> list[float]:
    return [full[what] / empty[what] for full, empty in zip(costs["full"], costs["empty"], strict=True)]


async def _asked(home: Home) -> list[float]:
    """Milliseconds for a page of jobs as ``tow jobs`` asks for it, from an open client."""
    async with Client(home.path / "tow.sock") as client:
        times: list[float] = []
        for _ in range(LOOKS):
            begin = time.perf_counter()
            page = await client.jobs(limit=20)
            times.append((time.perf_counter() - begin) * 1000)
            assert page.jobs
    return times
