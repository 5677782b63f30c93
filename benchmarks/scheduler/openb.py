"""openb: GPU allocation and failed pods of our policy and of FGD in the same runs, and pods a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.scheduler.keeping import Kept
from benchmarks.scheduler.published import ALLOCATION, best
from benchmarks.scheduler.rows import Row
from towline.simulation.described.policies import Setup
from towline.simulation.traces import inflation
from towline.simulation.traces.inflation import PERCENTS, Outcome, means
from towline.simulation.traces.openb import OpenbNode, OpenbPod, inflated, read_nodes, read_pods
from towline.simulation.traces.policies import typical

OWN, PEER = "headroom", "fgd"
NODES = "openb_node_list_gpu_node.csv.gz"
TOLERANCE = -0.2
"""So much below FGD may an allocation be, in points."""

Found = dict[str, dict[str, list[Outcome]]]
"""By trace and policy, an outcome a seed."""


class Traces:
    """The files of the experiment, and what was measured on them."""

    def __init__(self, folder: Path, names: Sequence[str], seeds: Sequence[int], kept: Kept) -> None:
        self.found: Found = {}
        self.pods = 0
        self.cpu_s = 0.0
        """Of our policy, of what was not kept from a run before."""
        self._folder = folder
        self._names, self._seeds, self._kept = names, seeds, kept
        self._nodes: list[OpenbNode] = read_nodes(folder / NODES)

    def run(self, policies: Sequence[str]) -> None:
        """Seed by seed, so that an interrupted run has said something of every trace."""
        pods = {name: read_pods(self._folder / f"openb_pod_list_{name}.csv.gz") for name in self._names}
        self.found = {name: {policy: [] for policy in policies} for name in self._names}
        for seed in self._seeds:
            for name in self._names:
                for policy in policies:
                    outcome = self._kept.find(name, seed, policy)
                    if outcome is None:
                        outcome = self._replay(pods[name], seed, policy)
                        self._kept.add(name, seed, policy, outcome)
                        print(f"   {name}, seed {seed}, {policy}", file=sys.stderr, flush=True)
                    self.found[name][policy].append(outcome)

    def _replay(self, pods: list[OpenbPod], seed: int, policy: str) -> Outcome:
        experiment = inflated(self._nodes, pods, seed)
        rules = Setup(policy, placement=policy).rules(typical(experiment.pods))
        begin = time.process_time()
        outcome = inflation.replay(experiment, rules)
        if policy == OWN:
            self.pods += outcome.pods
            self.cpu_s += time.process_time() - begin
        return outcome


def allocation(found: Found, trace: str, policy: str) -> tuple[dict[int, float], float]:
    """Means over the seeds: by arrived demand in %, and failed pods."""
    return means(found[trace][policy])


def rows(traces: Traces) -> list[Row]:
    """Those rows that can be said of what was run."""
    found = traces.found
    made: list[Row] = []
    if "default" in found:
        ours, _ = allocation(found, "default", OWN)
        made += _allocation_rows(
            "openb default, GPU allocation", ours, best("default"), (95.6, 95.75), (96.3, 96.4)
        )
    if set(found) == set(ALLOCATION):
        mean = {at: _mean([allocation(found, name, OWN)[0][at] for name in found]) for at in (100, 130)}
        made += _allocation_rows(
            "openb, mean of nine traces", mean, (93.24, 94.15), (94.4, 94.7), (95.0, 95.2)
        )
    if all(PEER in policies for policies in found.values()):
        made += _against_fgd(found)
    if not traces.pods:
        return made
    speed = traces.pods / traces.cpu_s
    note = "pods of a CPU second, through the whole pool"
    made.append(
        Row(
            measure="openb, pods placed or dropped",
            unit="pods/s",
            ours=speed,
            must=2000,
            aim=5000,
            peers="FGD's own simulator about 18",
            other=True,
            note=note,
        )
    )
    return made


def _allocation_rows(
    measure: str,
    ours: dict[int, float],
    peer: tuple[float, float],
    must: tuple[float, float],
    aim: tuple[float, float],
) -> list[Row]:
    return [
        Row(
            measure=f"{measure} at {percent} %",
            unit="%",
            ours=ours[percent],
            must=must[at],
            aim=aim[at],
            peers=f"FGD {peer[at]:.2f}",
            note="published for seeds of the same numbers, of another generator",
        )
        for at, percent in enumerate((100, 130))
    ]


def gains_and_losses(found: Found) -> tuple[tuple[float, str], tuple[float, str]]:
    """The least gain over our own run of FGD, and the most that failed above its; and where."""
    gains: list[tuple[float, str]] = []
    failed: list[tuple[float, str]] = []
    for name in found:
        (ours, lost), (theirs, lost_too) = (allocation(found, name, policy) for policy in (OWN, PEER))
        gains += [(ours[at] - theirs[at], f"{name} at {at} %") for at in PERCENTS if at in ours]
        failed.append((lost - lost_too, name))
    return min(gains), max(failed)


def _against_fgd(found: Found) -> list[Row]:
    least, most = gains_and_losses(found)
    return [
        Row(
            measure="openb, each trace at 90, 100, 130 %: least gain over FGD",
            unit="points",
            ours=least[0],
            must=TOLERANCE,
            aim=0.0,
            peers="FGD, run beside",
            note=least[1],
        ),
        Row(
            measure="openb, failed pods more than FGD's, at most",
            unit="pods",
            ours=most[0],
            must=0,
            aim=-1,
            peers="FGD, run beside",
            lower=True,
            note=most[1],
        ),
    ]


def details(found: Found) -> list[str]:
    """A line a trace: means over the seeds, ours and FGD's, and what FGD's authors published."""
    lines = ["trace         policy    at 90 %  at 100 %  at 130 %  failed pods"]
    for name, policies in found.items():
        for policy in policies:
            shares, failed = allocation(found, name, policy)
            numbers = "  ".join(f"{shares[at]:7.2f} " if at in shares else "        " for at in PERCENTS)
            lines.append(f"{name:12}  {policy:9} {numbers} {failed:9.1f}")
        hundred, most = best(name)
        lines.append(f"{name:12}  {'published':9}          {hundred:8.2f}  {most:8.2f}")
    return lines


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
