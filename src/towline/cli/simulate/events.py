"""``tow simulate events``: what has happened in a pool of Towline, once more and otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
from towline.cli.simulate.showing import check_plot, show


def events(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `tow events export` has written.")],
    cluster: ClusterFile = None,
    policy: PolicyNames = None,
    policies: Policies = None,
    add_nodes: AddNodes = None,
    plot: Plot = None,
    json: AsJson = False,
) -> None:
    """Replay the pool's own past: the same jobs, at the same times, on other nodes or by other policies.

    Nodes, queues and their order are those of the export, where nothing else is given.

    \b
    Examples:
      tow events export --since 7d -o week.jsonl
      tow simulate events week.jsonl --add-nodes -10
      tow simulate events week.jsonl --cluster nodes.yaml --policies shares.yaml --plot week.svg
    """

    def work() -> int:
        from towline.simulation.described.cluster import read_cluster
        from towline.simulation.replay.comparing import compare
        from towline.simulation.traces.exported import read_export

        check_plot(plot)
        change = changes(add_nodes)
        found = read(read_export, file, "FILE")
        chosen = setups(policy, policies, found.order, found.half_life_ms)
        nodes = found.nodes if cluster is None else read_cluster(cluster)
        if not nodes.nodes:
            raise refused("FILE", "has no nodes that were ready", "describe some with --cluster")
        show(compare(found.workload, nodes, chosen, change, Progress), json, plot)
        return terminal.OK

    terminal.end(work)
