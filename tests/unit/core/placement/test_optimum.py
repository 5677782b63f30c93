"""Placement beside an exact solver, on pools that are small enough for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from benchmarks.packing import Instance, cpu_instance, gpu_instance, optimum, placed_by

from towline.core.placement.choosing.rules import Rules
from towline.core.placement.policies.headroom import Headroom


@pytest.mark.parametrize(
    ("make", "rules", "least"),
    [
        (cpu_instance, Rules, 0.9),
        (gpu_instance, Rules, 0.8),
        (gpu_instance, lambda: Rules(policy=Headroom()), 0.8),
    ],
    ids=["CPUs", "GPUs, best fit", "GPUs, headroom"],
)
def test_never_above_the_optimum_and_not_far_below(
    make: Callable[[int], Instance], rules: Callable[[], Rules], least: float
) -> None:
    placed, possible = 0, 0.0
    for seed in range(100, 105):
        instance = make(seed)
        mine, best = placed_by(instance, rules()), optimum(instance, limit_s=2)
        assert mine <= best + 0.5
        placed, possible = placed + mine, possible + best
    assert placed >= least * possible
