"""One workload under several policies, and on a cluster with nodes more or fewer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from towline.simulation.described.cluster import Cluster, changed
from towline.simulation.described.policies import Setup
from towline.simulation.replay.engine import Progress, check_queues, replay
from towline.simulation.replay.record import Record
from towline.simulation.replay.workload import Workload
from towline.simulation.traces.policies import most_frequent

Changes = Mapping[str | None, int]
Shown = Callable[[str, int], AbstractContextManager[Progress]]
"""Given what is replayed and how many elements it has: something that is told of the progress."""


def compare(
    workload: Workload, cluster: Cluster, setups: Sequence[Setup], changes: Changes, shown: Shown
) -> dict[str, Record]:
    """By the name of the policy; with ``changes`` (as for ``cluster.changed``) each policy a second time
    on the changed cluster. Raises RequestError."""
    clusters = {"": cluster}
    if changes:
        clusters[f", {said(changes)}"] = changed(cluster, changes, "--add-nodes")
    for setup in setups:
        check_queues(workload, setup)  # before the first of them is replayed
    shapes = most_frequent(workload.shapes())
    found: dict[str, Record] = {}
    for setup in setups:
        for suffix, nodes in clusters.items():
            name = setup.name + suffix
            with shown(name, workload.elements) as progress:
                found[name] = replay(workload, nodes.nodes, setup, setup.rules(shapes), progress)
    return found


def said(changes: Changes) -> str:
    """A change of the cluster in words."""
    return ", ".join(
        f"{abs(count)} {group or 'node' + 's' * (abs(count) != 1)} {'fewer' if count < 0 else 'more'}"
        for group, count in changes.items()
    )
