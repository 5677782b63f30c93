"""The published placement policies that a trace can be replayed with, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from towline.core.placement.choosing.scores import Policy
from towline.core.placement.policies.bestfit import GpuBestFit
from towline.core.placement.policies.clustering import Clustering
from towline.core.placement.policies.dotprod import DotProduct
from towline.core.placement.policies.fgd import TYPICAL_SHARE, Fgd
from towline.core.placement.policies.firstfit import FirstFit
from towline.core.placement.policies.packing import Packing
from towline.core.placement.policies.random import Random
from towline.core.placement.shape import Shape, shape_of
from towline.simulation.traces.inflation import job_of
from towline.simulation.traces.openb import OpenbPod

Shapes = Sequence[tuple[Shape, float]]
"""Shapes that will come, with their part of all elements."""

PUBLISHED_PLACEMENTS: dict[str, Callable[[Shapes], Policy]] = {
    "fgd": Fgd,
    "bestfit": lambda shapes: GpuBestFit(),
    "packing": lambda shapes: Packing(),
    "clustering": lambda shapes: Clustering(),
    "dotprod": lambda shapes: DotProduct(),
    "firstfit": lambda shapes: FirstFit(),
    "random": lambda shapes: Random(),
}
"""Each call makes one with a memory of its own. Only FGD is told what will come."""


def typical(pods: Iterable[OpenbPod]) -> Shapes:
    """The most frequent shapes of pods. Memory does not tell them apart, as in FGD's authors' artifact."""
    return most_frequent(Counter(shape_of(job_of(pod._replace(memory_mib=1)).tasks["pod"]) for pod in pods))


def most_frequent(counts: Mapping[Shape, int]) -> Shapes:
    """The most frequent shapes that make up 95 % of all elements, with their part of those."""
    ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0].order))
    goal, seen = TYPICAL_SHARE * sum(counts.values()), 0
    found: list[tuple[Shape, int]] = []
    for shape, count in ranked:
        if seen >= goal:
            break
        found.append((shape, count))
        seen += count
    return [(shape, count / seen) for shape, count in found]
