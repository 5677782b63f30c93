"""Tasks that need others: what an edge costs the leader, and how long a successor waits."""

from __future__ import annotations

import asyncio
import time

from benchmarks import jobs, peers
from benchmarks.alone import Supervisor, supervisor_alone
from benchmarks.figures import Figure, Options, Report, median_of
from benchmarks.home import Home, fresh_home
from towline.client import Client

DEPTH = 10
OWN = 100
"""Single runs of the supervisor alone before and after each chain."""


class Ran:
    """One job: seconds from its acceptance to its end, its submission, and the server's CPU seconds."""

    length_s: float
    accept_s: float
    accept_cpu_s: float
    run_cpu_s: float


async def _ran(client: Client, home: Home, tree: jobs.Tree) -> Ran:
    ran = Ran()
    at_start = home.cpu_s()["server"]
    begin = time.perf_counter()
    job = await client.submit(tree)
    ran.accept_s = time.perf_counter() - begin
    accepted = home.cpu_s()["server"]
    ran.length_s = jobs.length_s(await job.wait())
    ran.accept_cpu_s, ran.run_cpu_s = accepted - at_start, home.cpu_s()["server"] - accepted
    return ran


def run(options: Options) -> Report:
    """Layers in turn with independent tasks, and a chain in turn with the supervisor alone."""
    count = options.count(1000, least=100) // DEPTH * DEPTH
    steps = options.count(500, least=50)
    with fresh_home() as home, supervisor_alone() as supervisor:
        home.start_server()
        figures = asyncio.run(_measured(home, supervisor, options.pairs, count, steps))
    edges = (count // DEPTH) ** 2 * (DEPTH - 1)
    title = f"{count:,} tasks in {DEPTH} layers ({edges:,} edges), and a chain of {steps}"
    method = (
        f"{options.pairs} pairs with {count:,} independent tasks; acceptance to end as the job's record "
        "says; the runtime's own time is that of keeper and supervisor alone, one `true` after another"
    )
    return Report(name="dag", title=title, method=method, figures=figures)


async def _measured(home: Home, supervisor: Supervisor, pairs: int, count: int, steps: int) -> list[Figure]:
    async with Client(home.path / "tow.sock") as client:
        await _ran(client, home, jobs.independent(40))  # warm
        layered: list[Ran] = []
        apart: list[Ran] = []
        for _ in range(pairs):
            layered.append(await _ran(client, home, jobs.layers(count, DEPTH)))
            apart.append(await _ran(client, home, jobs.independent(count)))
        chain = await _chain(client, home, supervisor, pairs, steps)
    hyperqueue = peers.hyperqueue(count, "layers").wall_s / peers.hyperqueue(count).wall_s
    return [
        *_layers(layered, apart, count),
        Figure(name="HyperQueue: layers / independent", value=hyperqueue, unit="x", note="one pair"),
        *chain,
    ]


def _layers(layered: list[Ran], apart: list[Ran], count: int) -> list[Figure]:
    ratios = [one.length_s / other.length_s for one, other in zip(layered, apart, strict=True)]

    def per_task(cpu_s: list[float]) -> list[float]:
        return [value / count * 1000 for value in cpu_s]

    return [
        median_of("layers / independent tasks", ratios, "x", most=1.5),
        median_of("layers, acceptance to end", [ran.length_s for ran in layered], "s"),
        median_of("independent, acceptance to end", [ran.length_s for ran in apart], "s"),
        median_of(
            "CPU of the server a task, layers", per_task([r.run_cpu_s for r in layered]), "ms", most=1.0
        ),
        median_of("CPU of the server a task, independent", per_task([r.run_cpu_s for r in apart]), "ms"),
        median_of("accepting the layers", [ran.accept_s for ran in layered], "s"),
        median_of("CPU of accepting a task, layers", per_task([r.accept_cpu_s for r in layered]), "ms"),
    ]


def _one_after_another(supervisor: Supervisor, count: int) -> float:
    return sum(supervisor.run(1) for _ in range(count))


async def _chain(client: Client, home: Home, supervisor: Supervisor, pairs: int, steps: int) -> list[Figure]:
    own: list[float] = []
    whole: list[float] = []
    for _ in range(pairs):
        before_s = _one_after_another(supervisor, OWN)
        whole.append((await _ran(client, home, jobs.chain(steps))).length_s / steps * 1000)
        own.append((before_s + _one_after_another(supervisor, OWN)) / (2 * OWN) * 1000)
    above = [one - other for one, other in zip(whole, own, strict=True)]
    return [
        median_of("chain, a step above the runtime's own", above, "ms", most=5.0),
        median_of("chain, a step", whole, "ms"),
        median_of("the runtime's own time", own, "ms"),
    ]
