"""``tow simulate openb``: GPU clusters that are filled until nothing fits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towline.cli.arguments import AsJson
from towline.cli.screen import terminal
from towline.cli.simulate.options import (
    AddNodes,
    ClusterFile,
    Plot,
    Policies,
    PolicyNames,
    Progress,
    changes,
    read,
    refused,
    setups,
)
from towline.cli.simulate.showing import check_plot, drawn

if TYPE_CHECKING:
    from towline.simulation.described.cluster import Cluster
    from towline.simulation.described.policies import Setup
    from towline.simulation.traces.inflation import Outcome
    from towline.simulation.traces.openb import OpenbNode, OpenbPod

OWN = "headroom"
Nodes = Annotated[Path | None, typer.Option("--nodes", metavar="FILE", help="Nodes, CSV, plain or gzipped.")]
Pods = Annotated[Path, typer.Option("--pods", metavar="FILE", help="Pods, CSV, plain or gzipped.")]
Seeds = Annotated[str, typer.Option("--seeds", metavar="A-B", help="Seeds of the order in which pods come.")]


def openb(
    pods: Pods,
    nodes: Nodes = None,
    cluster: ClusterFile = None,
    policy: PolicyNames = None,
    policies: Policies = None,
    add_nodes: AddNodes = None,
    seeds: Seeds = "42",
    plot: Plot = None,
    json: AsJson = False,
) -> None:
    """Fill a GPU cluster with pods until they ask for 130 % of its GPUs.

    Shows which part of the GPUs is allocated when so much has been asked for, in %, and how many pods
    found no place; means over the seeds. Of policies only placement matters here: nobody waits.

    \b
    Examples:
      tow simulate openb --nodes nodes.csv --pods pods.csv
      tow simulate openb --nodes n.csv --pods p.csv --policy headroom --policy fgd --seeds 42-51
      tow simulate openb --cluster cluster.yaml --pods p.csv --add-nodes gpu=-10
    """

    def work() -> int:
        from towline.simulation.traces.openb import read_pods

        check_plot(plot)
        chosen, change, numbers = (
            setups(policy, policies, OWN, orders=False),
            changes(add_nodes),
            _seeds(seeds),
        )
        there, coming = _cluster(nodes, cluster), read(read_pods, pods, "--pods")
        clusters = {"": there}
        if change:
            from towline.simulation.described.cluster import changed
            from towline.simulation.replay.comparing import said

            clusters[f", {said(change)}"] = changed(there, change, "--add-nodes")
        found: dict[str, list[Outcome]] = {}
        for suffix, one in clusters.items():
            had = _openb_nodes(one)
            _check_demand(had, coming)
            found |= _replayed(had, coming, chosen, numbers, suffix)
        _show(found, json, plot)
        return terminal.OK

    terminal.end(work)


def _cluster(nodes: Path | None, cluster: Path | None) -> Cluster:
    from towline.simulation.described.cluster import grouped, read_cluster
    from towline.simulation.traces.inflation import node_row
    from towline.simulation.traces.openb import read_nodes

    if (nodes is None) == (cluster is None):
        raise refused("--nodes", "is missing" if nodes is None else "is given beside --cluster", "give one")
    if cluster is not None:
        return read_cluster(cluster)
    return grouped(node_row(node, at) for at, node in enumerate(read(read_nodes, nodes, "--nodes")))


def _openb_nodes(cluster: Cluster) -> list[OpenbNode]:
    from towline.simulation.traces.openb import OpenbNode

    return [
        OpenbNode(
            row.name,
            row.cpu_milli,
            row.memory_bytes // 1024**2,
            len(row.gpus),
            row.gpus[0].model if row.gpus else "",
        )
        for row in cluster.nodes
    ]


def _replayed(
    nodes: list[OpenbNode], pods: list[OpenbPod], chosen: list[Setup], seeds: list[int], suffix: str
) -> dict[str, list[Outcome]]:
    from towline.simulation.traces import inflation
    from towline.simulation.traces.openb import inflated
    from towline.simulation.traces.policies import typical

    found: dict[str, list[Outcome]] = {setup.name + suffix: [] for setup in chosen}
    for seed in seeds:
        experiment = inflated(nodes, pods, seed)
        shapes = typical(experiment.pods)
        for setup in chosen:
            name = setup.name + suffix
            with Progress(f"{name}, seed {seed}", len(experiment.pods), "pods") as progress:
                rules = setup.rules(shapes)
                found[name].append(inflation.replay(experiment, rules, progress))
    return found


def _show(found: dict[str, list[Outcome]], json: bool, plot: Path | None) -> None:
    from towline.simulation.traces.inflation import PERCENTS, means

    told: dict[str, Any] = {}
    for name, outcomes in found.items():
        allocation, failed = means(outcomes)
        told[name] = {
            "allocation": {str(at): round(value, 3) for at, value in allocation.items()},
            "failed_pods": round(failed, 2),
        }
    if json:
        terminal.write_json({"policies": told})
    else:
        rows = [
            [name, *(one["allocation"].get(str(at)) for at in PERCENTS), one["failed_pods"]]
            for name, one in told.items()
        ]
        terminal.table(["policy", *(f"at {at} %" for at in PERCENTS), "failed pods"], rows)
    if plot is not None:
        from towline.simulation.replay.plot import draw_allocation

        drawn(lambda: draw_allocation(told, plot), plot)


def _seeds(text: str) -> list[int]:
    """``42`` or ``42-51``. Raises InvalidDocument."""
    first, dash, last = text.partition("-")
    if first.isdecimal() and (last.isdecimal() if dash else True):
        numbers = list(range(int(first), int(last or first) + 1))
        if 1 <= len(numbers) <= 1000:
            return numbers
    raise refused("--seeds", f"is {text!r}", "write a seed or a range of them, such as 42-51")


def _check_demand(nodes: list[OpenbNode], pods: list[OpenbPod]) -> None:
    if not any(node.gpus for node in nodes):
        raise refused("--nodes", "no node has a GPU", "name a file with GPUs")
    if not any(pod.gpus for pod in pods):
        raise refused("--pods", "no pod asks for a GPU", "name a file with GPUs")
