"""``tow simulate swf``: batch logs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from towline.simulation.described.cluster import Cluster
    from towline.simulation.traces.swf import SwfTrace

Processors = Annotated[
    int | None,
    typer.Option("--processors", metavar="N", min=1, help="Of the machine; by default what the log says."),
]
Queue = Annotated[str, typer.Option("--queue", metavar="QUEUE", help="The queue that all jobs go to.")]


def swf(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A log in the Standard Workload Format.")],
    processors: Processors = None,
    cluster: ClusterFile = None,
    policy: PolicyNames = None,
    policies: Policies = None,
    add_nodes: AddNodes = None,
    queue: Queue = "default",
    plot: Plot = None,
    json: AsJson = False,
) -> None:
    """Replay a batch log, on one machine of so many processors or on a cluster.

    \b
    Examples:
      tow simulate swf KTH-SP2-1996-2.1-cln.swf.gz --processors 100
      tow simulate swf log.swf --policy slowdown --policy easy --plot waits.svg
      tow simulate swf log.swf --cluster nodes.yaml --add-nodes -10
    """

    def work() -> int:
        from towline.simulation.described.policies import OWN
        from towline.simulation.replay.comparing import compare
        from towline.simulation.traces.batch import largest, workload_of
        from towline.simulation.traces.swf import read_swf, workload

        check_plot(plot)
        chosen, change = setups(policy, policies, OWN), changes(add_nodes)
        trace = read(read_swf, file, "FILE")
        nodes = _nodes(trace, processors, cluster)
        log = workload(trace.records, largest(nodes))
        if not trace.records:
            raise refused("FILE", f"{terminal.safe(str(file))} has no job", "fetch the log again")
        if not log.jobs:
            raise refused("FILE", f"no job of it fits {largest(nodes)} processors", "take a larger machine")
        coming = workload_of(log.jobs, queue, log.skipped)
        show(compare(coming, nodes, chosen, change, Progress), json, plot)
        return terminal.OK

    terminal.end(work)


def _nodes(trace: SwfTrace, processors: int | None, cluster: Path | None) -> Cluster:
    from towline.simulation.described.cluster import read_cluster
    from towline.simulation.traces.batch import one_machine

    if cluster is not None:
        if processors is not None:
            raise refused("--processors", "is for a single machine", "leave it out beside --cluster")
        return read_cluster(cluster)
    size = processors or trace.processors
    if size is None:
        raise refused("--processors", "the log does not say how many there are", "write --processors N")
    return one_machine(size)
