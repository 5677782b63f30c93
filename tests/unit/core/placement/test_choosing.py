"""Which of the nodes with room is taken."""

from __future__ import annotations

import numpy as np
from tests.unit.core.placement.nodes_made import GIB, gpus, nodes_of, row, shape

from towline.core.placement.choosing.rules import Rules
from towline.core.placement.columns import Column, Mask, NodeColumns
from towline.core.placement.shape import Shape, shape_of
from towline.model.job import Gpu, Preference, TaskSpec


def test_equal_shapes_are_one_and_their_order_is_made_of_what_they_ask_for() -> None:
    assert shape(tolerate=("a", "b")) is shape(tolerate=("b", "a", "b"))
    assert shape() is not shape(1001)
    asked = shape(1001)
    order = asked.order
    del asked
    assert shape(1001).order == order
    assert shape_of(TaskSpec()).gpu_count == 0


def test_the_fullest_node_comes_first_and_equal_ones_in_order() -> None:
    nodes = nodes_of(row("n0"), row("n1"), row("n2"))
    nodes.take(1, shape(memory_bytes=20 * GIB), 1)
    assert nodes.room(shape()) == [(1, 7), (0, 8), (2, 8)]
    assert nodes.room(shape(), 7) == [(1, 7)]
    assert nodes.room(shape(), 8) == [(1, 7), (0, 8)]


def test_what_needs_no_gpu_stays_away_from_them_as_long_as_it_can() -> None:
    nodes = nodes_of(row("n0", gpus=gpus("T4")), row("n1"))
    nodes.take(0, shape(6000), 1)
    assert nodes.room(shape(1000)) == [(1, 8), (0, 2)]
    assert nodes.room(shape(1000, gpu=Gpu())) == [(0, 1)]


def test_what_is_preferred_outweighs_how_full_a_node_is() -> None:
    nodes = nodes_of(
        row("n0"), row("n1", labels={"zone": "b"}), row("n2", labels={"ssd": "y"}, gpus=gpus("T4"))
    )
    nodes.take(0, shape(7000), 1)
    wishes = (Preference(key="zone", values=("b",), weight=2), Preference(key="ssd", op="exists"))
    assert [column for column, _ in nodes.room(shape(prefer=wishes))] == [1, 2, 0]


def test_a_share_goes_to_the_device_with_the_least_left_that_will_do() -> None:
    nodes = nodes_of(row("n0", gpus=gpus("T4", "T4")))
    third, half = shape(gpu=Gpu(milli=300)), shape(gpu=Gpu(milli=500))
    assert nodes.take(0, third, 1) == ["0:300"]
    assert nodes.take(0, half, 1) == ["0:500"]
    assert nodes.take(0, third, 3) == ["1:300", "1:300", "1:300"]
    assert nodes.room(third) == []
    nodes.give(0, half, "0:500")
    assert nodes.room(third) == [(0, 2)]
    assert nodes.gpu_free_milli[0].tolist() == [700, 100]


def test_slices_are_given_to_those_only_who_ask_for_slices() -> None:
    nodes = nodes_of(row("n0", gpus=gpus("A100", "A100:1g.5gb", "A100:1g.5gb", "A100:2g.10gb")))
    assert nodes.room(shape(gpu=Gpu())) == [(0, 1)]
    assert nodes.room(shape(gpu=Gpu(count=2))) == []
    asked = shape(gpu=Gpu(count=2, slice="1g.5gb"))
    assert nodes.take(0, asked, 1) == ["1,2"]
    assert nodes.room(asked) == []
    assert nodes.room(shape(gpu=Gpu(slice="2g.10gb"))) == [(0, 1)]


class Fewest:
    """A policy that looks at all nodes: the one whose devices are the freest."""

    name = "fewest"
    moving = True

    def __init__(self) -> None:
        self.seen: dict[Shape, int] = {}

    def observe(self, ask: Shape, count: int) -> None:
        self.seen[ask] = self.seen.get(ask, 0) + count

    def scores(self, view: NodeColumns, ask: Shape, columns: Column) -> Column:
        return view.gpu_free_milli[columns].sum(axis=1) - int(view.gpu_free_milli.sum())

    def device(self, view: NodeColumns, ask: Shape, column: int) -> int:
        return int(view.gpu_free_milli[column].argmax())


def test_a_policy_may_look_at_all_nodes_and_choose_the_device() -> None:
    policy = Fewest()
    nodes = nodes_of(
        row("n0", gpus=gpus("T4", "T4")), row("n1", gpus=gpus("T4", "T4")), rules=Rules(policy=policy)
    )
    half = shape(gpu=Gpu(milli=500))
    nodes.rules.observe(half, 3)
    assert policy.seen == {half: 3}
    given: list[tuple[int, list[str | None]]] = []
    while room := nodes.room(half, 4):
        given.append((room[0][0], nodes.take(room[0][0], half, 1)))
    assert given[:4] == [(0, ["0:500"]), (1, ["0:500"]), (0, ["1:500"]), (1, ["1:500"])]
    assert len(given) == 8


def test_what_asks_for_no_gpu_is_packed_by_two_policies_in_one_pool() -> None:
    """Best fit on nodes without GPUs; on the others, once those are full, the policy for GPUs, one by one."""
    mixed = [
        row(f"n{at}", cpu_milli=4000 + 1000 * at, gpus=gpus("T4") if at in (0, 3) else ()) for at in range(12)
    ]
    nodes = nodes_of(*mixed, rules=Rules(policy=Fewest()))
    plain = shape(cpu_milli=4000)
    nodes.take(0, shape(cpu_milli=100, gpu=Gpu(milli=500)), 1)
    assert nodes.room(plain, 1) == [(1, 1)]
    without = [(1, 1), (2, 1), (4, 2), (5, 2), (6, 2), (7, 2), (8, 3), (9, 3), (10, 3), (11, 3)]
    found = nodes.room(plain, 100)
    assert sorted(found) == without
    assert found[0] == (1, 1)
    for column, count in without:
        nodes.take(column, plain, count)
    assert nodes.room(plain, 100) == [(3, 1)]  # the fewest milli are taken of it; n0 has no room
    nodes.take(3, plain, 1)
    assert nodes.room(plain, 100) == []


class OddOnly:
    name = "odd-only"

    def mask(self, view: NodeColumns, ask: Shape, columns: Column) -> Mask:
        return columns % 2 == 1

    def reason(self, view: NodeColumns, ask: Shape, column: int) -> str:
        return "its number is even"


class LastFirst:
    name = "last-first"

    def scores(self, view: NodeColumns, ask: Shape, columns: Column) -> Column:
        return columns.astype(np.int64)


def test_filters_and_scores_of_a_users_own() -> None:
    nodes = nodes_of(
        *(row(f"n{at}") for at in range(5)), rules=Rules(filters=(OddOnly(),), scores=(LastFirst(),))
    )
    assert nodes.room(shape(), 1) == [(3, 8)]
    assert [column for column, _ in nodes.room(shape())] == [3, 1]
    nodes.take(3, shape(8000), 1)
    assert nodes.room(shape(), 1) == [(1, 8)]
    assert nodes.first_misfit(shape(), 2) == "its number is even"
    assert nodes.misfits(shape())[0].nodes == 3
