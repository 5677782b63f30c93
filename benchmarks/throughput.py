"""Many short elements through the whole system, and the fsyncs that this takes."""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path

from benchmarks import jobs, peers
from benchmarks.figures import Figure, Options, Report, median_of
from benchmarks.home import Home, fresh_home, spent

ROLES = ("server", "agent", "keeper", "supervisor", "payload", "tow run")
STRACE = ["strace", "--follow-forks", "--seccomp-bpf", "--quiet=all", "--trace=fsync,fdatasync"]
SYNCS = re.compile(r"\b(fsync|fdatasync)\(")


def throughput(options: Options) -> Report:
    """An array of ``true`` through ``tow run``, in turn with a bare loop and HyperQueue."""
    count = options.count(10_000, least=100)
    walls: dict[str, list[float]] = {"loop": [], "tow": [], "hq": []}
    costs: list[dict[str, float]] = []
    commits: list[float] = []
    with fresh_home() as home:
        file = jobs.written(jobs.array(count), home.path)
        home.start_server()
        home.tow("run", jobs.written({**jobs.array(200), "name": "warm"}, home.path))
        for _ in range(options.pairs):
            walls["loop"].append(peers.posix_spawn(count).wall_s)
            before = _commits(home)
            wall_s, cost = _measured(home, file)
            commits.append((_commits(home) - before) / count)
            walls["tow"].append(wall_s)
            costs += cost
            walls["hq"].append(peers.hyperqueue(count).wall_s)
    title = f"an array of {count:,} x true through `tow run` on a running server, 40 at a time"
    method = f"in turn with both others, {options.pairs} rounds; wall time of the whole command"
    figures = [*_ratios(walls, count), *_costs(costs, count), median_of("commits an element", commits)]
    return Report(name="throughput", title=title, method=method, figures=figures)


def _measured(home: Home, file: str) -> tuple[float, list[dict[str, float]]]:
    """The wall time, and the CPU seconds by process unless one of them was replaced meanwhile."""
    pids, before = home.pids(), home.cpu_s()
    run = home.tow("run", file)
    costs = {**spent(before, home.cpu_s()), "tow run": run.cpu_s}
    return run.wall_s, [costs] if home.pids() == pids else []


def _ratios(walls: dict[str, list[float]], count: int) -> list[Figure]:
    def against(other: str) -> list[float]:
        return [theirs / ours for theirs, ours in zip(walls[other], walls["tow"], strict=True)]

    names = {"tow": "tow run", "loop": "serial posix_spawn loop", "hq": "HyperQueue, single node"}
    rates = [median_of(names[key], [count / wall for wall in walls[key]], "/s") for key in names]
    return [
        median_of("tow run / posix_spawn loop", against("loop"), "x", least=0.5),
        median_of("tow run / HyperQueue", against("hq"), "x", least=1.0),
        *rates,
    ]


def _costs(costs: list[dict[str, float]], count: int) -> list[Figure]:
    if not costs:
        return []

    def each(role: str) -> list[float]:
        return [cost.get(role, 0.0) / count * 1e6 for cost in costs]

    ours = [role for role in ROLES if role != "payload"]
    totals = [sum(column) for column in zip(*(each(role) for role in ours), strict=True)]
    notes = {
        "payload": "the `true` processes themselves",
        "supervisor": "its part of spawn and wait included",
    }
    return [
        median_of(f"CPU {role}", each(role), "us/element", note=notes.get(role, "")) for role in ROLES
    ] + [median_of("CPU of all of ours", totals, "us/element")]


# --- fsyncs ---------------------------------------------------------------------------------------------
def fsyncs(options: Options) -> Report:
    """fsync and fdatasync calls of all processes in one run under strace."""
    count = options.count(10_000, least=100)
    title = f"fsync and fdatasync calls in a run of {count:,} x true, over all processes"
    if shutil.which("strace") is None:
        method = "NOT MEASURED: strace is not installed; on Debian: apt-get install strace"
        return Report(name="fsyncs", title=title, method=method, figures=[])
    method = (
        "one run of its own under strace, which slows it, so that its commits are smaller than they are else"
    )
    with fresh_home() as home:
        return Report(name="fsyncs", title=title, method=method, figures=_traced(home, count))


def _traced(home: Home, count: int) -> list[Figure]:
    servers, commands = home.path / "servers.trace", home.path / "command.trace"
    home.start_server(prefix=[*STRACE, f"--output={servers}"])
    file = jobs.written(jobs.array(count), home.path)
    home.tow("run", jobs.written({**jobs.array(40), "name": "warm"}, home.path))
    syncs, commits = _syncs(servers), _commits(home)
    run = home.tow("run", file, prefix=[*STRACE, f"--output={commands}"])
    syncs = _syncs(servers) + _syncs(commands) - syncs
    commits = _commits(home) - commits
    return [
        Figure(name="fsyncs an element", value=syncs / count, most=0.2, note=f"{syncs:,} calls"),
        Figure(name="commits an element", value=commits / count, note="as the pool's own counter has it"),
        Figure(name="rate under strace", value=count / run.wall_s, unit="/s"),
    ]


def _syncs(trace: Path) -> int:
    with trace.open() as lines:
        return sum(bool(SYNCS.search(line)) for line in lines)


def _commits(home: Home) -> int:
    connection = sqlite3.connect(f"file:{home.path}/state.db?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT commit_no FROM pool").fetchone()[0])
    finally:
        connection.close()
