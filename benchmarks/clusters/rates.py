"""What a cluster of one server and one node costs beside the local mode: rate, latency, containers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from benchmarks import jobs, peers
from benchmarks.alone import supervisor_alone
from benchmarks.clusters.joined import Cluster, cluster
from benchmarks.containers import measured_against_loop
from benchmarks.figures import Figure, Options, Report, median_of
from benchmarks.home import Home, fresh_home, spent
from benchmarks.latency import JOBS, above, measured

ROLES = ("server", "agent", "supervisor", "payload", "tow run")


def run(options: Options) -> Report:
    """An array through both in turn, and HyperQueue; then single elements, then containers."""
    count = options.count(10_000, least=100)
    with fresh_home() as local, cluster() as joined:
        local.start_server()
        walls, costs = _rates(local, joined, count, options.pairs)
    with cluster() as joined, supervisor_alone() as supervisor:
        whole, own = asyncio.run(measured(joined.remote, supervisor))
    figures = [
        median_of("rate / local mode", _ratios(walls["local"], walls["cluster"]), "x", least=0.8),
        median_of("rate / HyperQueue", _ratios(walls["hq"], walls["cluster"]), "x", least=1.0),
        *(median_of(f"rate, {name}", [count / wall for wall in walls[name]], "/s") for name in walls),
        *_costs(costs, count),
        above(whole, own),
        median_of("open connection", whole, "ms"),
        median_of("the runtime's own time", own, "ms"),
    ]
    method = (
        f"server and agent on one machine, asked over TLS; {options.pairs} rounds in turn with the "
        f"local mode and HyperQueue; submit and wait {JOBS} times in turn with the supervisor alone"
    )
    title = f"an array of {count:,} x true (40 at a time) and single ones, in a cluster of one node"
    return Report(name="cluster", title=title, method=method, figures=figures)


def crun(options: Options) -> Report:
    """Containers in the cluster, whose output is shipped, against the bare loop."""
    with cluster() as joined:
        report = measured_against_loop("crun", options, joined.user, joined.cpu_s, joined.server.path)
    report.name = "cluster-crun"
    report.title += ", in a cluster of one node, log shipping included"
    return report


def _rates(
    local: Home, joined: Cluster, count: int, pairs: int
) -> tuple[dict[str, list[float]], dict[str, list[dict[str, float]]]]:
    """Wall seconds by who ran the array, and CPU seconds by process for ours."""
    walls: dict[str, list[float]] = {"cluster": [], "local": [], "hq": []}
    costs: dict[str, list[dict[str, float]]] = {"cluster": [], "local": []}
    sides: dict[str, tuple[Home, Callable[[], dict[str, float]]]] = {
        "local": (local, local.cpu_s),
        "cluster": (joined.user, joined.cpu_s),
    }
    file = jobs.written(jobs.array(count), local.path)
    warm = jobs.written({**jobs.array(200), "name": "warm"}, local.path)
    for home, _ in sides.values():
        home.tow("run", warm)
    for at in range(pairs):
        for name in sorted(sides, reverse=bool(at % 2)):
            home, cpu_s = sides[name]
            before = cpu_s()
            done = home.tow("run", file)
            walls[name].append(done.wall_s)
            costs[name].append({**spent(before, cpu_s()), "tow run": done.cpu_s})
        walls["hq"].append(peers.hyperqueue(count).wall_s)
    return walls, costs


def _ratios(other: list[float], ours: list[float]) -> list[float]:
    return [theirs / mine for theirs, mine in zip(other, ours, strict=True)]


def _costs(costs: dict[str, list[dict[str, float]]], count: int) -> list[Figure]:
    def each(name: str, role: str) -> list[float]:
        return [cost.get(role, 0.0) / count * 1e6 for cost in costs[name]]

    found = [(role, name, each(name, role)) for role in ROLES for name in costs]
    return [median_of(f"CPU {role}, {name}", values, "us/element") for role, name, values in found]
