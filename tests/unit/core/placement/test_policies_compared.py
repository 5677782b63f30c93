"""The policies that Towline is compared with: each does what its paper says, on nodes small enough to see."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core.placement.nodes_made import GIB, Ledgers, gpus, nodes_of, row, shape

from towline.core.placement.choosing.rules import Rules
from towline.core.placement.choosing.scores import Policy
from towline.core.placement.filters.conditions import kind_serves
from towline.core.placement.nodes import Nodes
from towline.core.placement.policies.bestfit import GpuBestFit
from towline.core.placement.policies.clustering import Clustering
from towline.core.placement.policies.dotprod import DotProduct
from towline.core.placement.policies.fgd import Fgd, typical_of
from towline.core.placement.policies.firstfit import FirstFit
from towline.core.placement.policies.packing import Packing
from towline.core.placement.policies.random import Random
from towline.core.placement.shape import Shape
from towline.model.job import Gpu


def asks(cpu_milli: int, count: int = 1, milli: int = 1000, model: tuple[str, ...] = ()) -> Shape:
    return shape(cpu_milli=cpu_milli, pids=1, gpu=Gpu(count=count, milli=milli, model=model))


PLAIN = shape(cpu_milli=2000, pids=1)
ONE, TWO, HALF, LITTLE = asks(1000), asks(1000, count=2), asks(1000, milli=500), asks(500, milli=300)
TYPICAL = [(ONE, 0.4), (HALF, 0.3), (TWO, 0.2), (PLAIN, 0.1)]


def pool(policy: Policy, *counts: int, cpu_milli: int = 16_000) -> Nodes:
    rows = [
        row(f"n{at}", cpu_milli=cpu_milli, memory_bytes=256 * GIB, gpus=gpus(*["T4"] * count))
        for at, count in enumerate(counts)
    ]
    return nodes_of(*rows, rules=Rules(policy=policy, plain=policy))


def best(nodes: Nodes, asked: Shape) -> int:
    return nodes.room(asked, 1)[0][0]


# --- FGD ----------------------------------------------------------------------------------------------
def fragmentation(nodes: Nodes, column: int, cpu: int, free: list[int]) -> float:
    total = 0.0
    kind = nodes.kinds[nodes.device_kind[column, 0]]
    for typical, part in TYPICAL:
        blocked = sum(free)
        if typical.gpu is not None and kind_serves(typical, kind) and cpu >= typical.cpu_milli:
            room = [milli for milli in free if milli >= typical.gpu_milli]
            if len(room) >= typical.gpu_count:
                blocked = sum(free) - sum(room)
        total += part * blocked
    return total


def by_hand(nodes: Nodes, asked: Shape, column: int) -> dict[int, int]:
    """The score of each device that a share could be taken from; for other elements of −1."""
    free = [milli for milli in nodes.gpu_free_milli[column].tolist() if milli >= 0]
    cpu = int(nodes.free_cpu_milli[column])
    found: dict[int, int] = {}
    for at, milli in enumerate(free) if asked.shares else [(-1, 0)]:
        if asked.shares and milli < asked.gpu_milli:
            continue
        after, whole = list(free), asked.gpu_count if asked.whole else 0
        if asked.shares:
            after[at] -= asked.gpu_milli
        for device in [at for at, milli in enumerate(after) if milli == 1000][:whole]:
            after[device] = 0
        gain = fragmentation(nodes, column, cpu, free)
        gain -= fragmentation(nodes, column, cpu - asked.cpu_milli, after)
        found[at] = math.floor(100 / (1 + math.exp(-gain / 1000)) + 1e-9)
    return found


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([PLAIN, ONE, TWO, HALF, LITTLE]), max_size=14))
def test_fgd_is_what_its_paper_says(steps: list[Shape]) -> None:
    policy = Fgd(TYPICAL)
    nodes = pool(policy, 1, 2, 4, cpu_milli=6000)
    ledgers = Ledgers(nodes)
    for asked in steps:
        columns = np.array([column for column, _ in nodes.room(asked)], dtype=np.int64)
        if not len(columns):
            continue
        scores = policy.scores(nodes, asked, columns)
        for column, score in zip(columns.tolist(), scores.tolist(), strict=True):
            hand = by_hand(nodes, asked, column)
            assert abs(score - max(hand.values())) <= 1
            if asked.shares:
                assert hand[policy.device(nodes, asked, column)] >= max(hand.values()) - 1
        ledgers.place(asked, 1)
        ledgers.check()


def test_the_typical_shapes_are_the_most_frequent() -> None:
    other_memory = shape(cpu_milli=1000, memory_bytes=7 * GIB, gpu=Gpu())
    queued = [ONE] * 5 + [other_memory] * 5 + [TWO] * 6 + [HALF] * 3 + [PLAIN]
    assert typical_of(queued) == [(ONE, 10 / 19), (TWO, 6 / 19), (HALF, 3 / 19)]
    assert typical_of(queued, 0.5) == [(ONE, 1.0)]
    assert typical_of([]) == []


# --- the others ---------------------------------------------------------------------------------------
def test_first_fit_takes_the_first() -> None:
    nodes = pool(FirstFit(), 1, 4, 2)
    assert best(nodes, ONE) == 0
    assert best(nodes, TWO) == 1


def test_best_fit_leaves_the_least() -> None:
    nodes = pool(GpuBestFit(), 4, 1, 2)
    assert best(nodes, ONE) == 1
    assert best(nodes, TWO) == 2
    nodes.take(0, asks(12_000, count=3), 1)
    assert best(nodes, HALF) == 0


def test_dot_product_goes_where_least_is_free_of_what_is_asked() -> None:
    nodes = pool(DotProduct(), 8, 2, 8)
    assert best(nodes, ONE) == 1
    nodes.take(2, asks(15_000, count=7), 1)
    assert best(nodes, ONE) == 2


def test_packing_prefers_shared_devices_then_nodes_in_use() -> None:
    nodes = pool(Packing(), 4, 4, 4)
    nodes.take(1, ONE, 1)
    nodes.take(2, HALF, 1)
    scores = Packing().scores(nodes, LITTLE, np.arange(3))
    assert scores.tolist() == [29, 49, 95]
    assert Packing().scores(nodes, TWO, np.arange(3)).tolist() == [29, 48, 48]
    assert best(nodes, PLAIN) == 0


def test_clustering_puts_like_to_like() -> None:
    policy = Clustering()
    nodes = pool(policy, 4, 4, 4, 4)
    ledgers = Ledgers(nodes)
    order = [ONE, TWO, HALF, TWO, ONE, HALF, ONE, LITTLE]
    for asked in order:
        assert ledgers.place(asked, 1) == 1
    columns = [column for column, _, _ in ledgers.held]
    assert columns == [0, 1, 2, 1, 0, 2, 0, 2]
    for _ in range(3):
        ledgers.end(0)
    assert best(nodes, ONE) == 0


def test_random_draws_again_and_the_same_from_a_seed() -> None:
    def drawn(seed: int) -> list[int]:
        nodes = pool(Random(seed), *[1] * 40)
        return [best(nodes, ONE) for _ in range(40)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert len(set(drawn(3))) > 15


@pytest.mark.parametrize(
    "make", [FirstFit, GpuBestFit, DotProduct, Packing, Clustering, Random, lambda: Fgd(TYPICAL)]
)
def test_scores_are_integers_for_all_that_may_be_asked(make: type[FirstFit]) -> None:
    nodes = pool(make(), 0, 1, 4)
    for asked in (PLAIN, ONE, TWO, HALF, LITTLE):
        columns = np.array([column for column, _ in nodes.room(asked)], dtype=np.int64)
        scores = make().scores(nodes, asked, columns)
        assert scores.dtype == np.int64
        assert len(scores) == len(columns)
        assert ((scores >= 0) & (scores < 2**40)).all()
