"""How long one ``true`` takes: from nothing, warm, and from a program with an open connection."""

from __future__ import annotations

import asyncio
import statistics
import time

from benchmarks import jobs
from benchmarks.alone import Supervisor, supervisor_alone
from benchmarks.figures import Figure, Options, Report, median_of
from benchmarks.home import TOW, fresh_home
from towline.client import Client
from towline.client.cluster.remote import Remote

COMMAND = ["run", "--runtime", "process", "--", "true"]
WARM_RUNS = 5
JOBS = 50


def run(options: Options) -> Report:
    """Cold and warm ``tow run``; then submit and wait from one client, in turn with the supervisor alone."""
    cold: list[float] = []
    warm: list[float] = []
    for _ in range(options.pairs):
        with fresh_home() as home:
            cold.append(home.tow(*COMMAND).wall_s)
            warm += [home.tow(*COMMAND).wall_s for _ in range(WARM_RUNS)]
    with fresh_home() as home, supervisor_alone() as supervisor:
        home.start_server()
        whole, own = asyncio.run(measured(str(home.path / "tow.sock"), supervisor))
    figures = [
        median_of("tow run, nothing started", cold, "s", most=3.0),
        median_of("tow run, warm", warm, "s", most=0.6),
        above(whole, own),
        median_of("open connection", whole, "ms"),
        median_of("the runtime's own time", own, "ms"),
    ]
    method = (
        f"`{TOW.rsplit('/', 1)[-1]} {' '.join(COMMAND)}`: {options.pairs} cold, {len(warm)} warm; "
        f"submit and wait of the SDK, {JOBS} times in turn with keeper and supervisor alone"
    )
    return Report(name="latency", title="one `true`", method=method, figures=figures)


def above(whole: list[float], own: list[float]) -> Figure:
    value = statistics.median(whole) - statistics.median(own)
    return Figure(name="open connection, above the runtime's own", value=value, unit="ms", most=15.0)


async def measured(at: str | Remote, supervisor: Supervisor) -> tuple[list[float], list[float]]:
    """Milliseconds of each submit and wait from one open client, and of each run of the supervisor alone."""
    whole: list[float] = []
    own: list[float] = []
    async with Client(at) as client:
        for _ in range(JOBS + 5):
            own.append(supervisor.run(1) * 1000)
            begin = time.perf_counter()
            job = await client.submit(jobs.single())
            view = await job.wait()
            whole.append((time.perf_counter() - begin) * 1000)
            jobs.length_s(view)  # it has succeeded
    return whole[5:], own[5:]
