"""Towline's own GPU policy: what it keeps room for, and that it remembers right."""

from __future__ import annotations

import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core.driver import empty, task
from tests.unit.core.placement import slow_headroom
from tests.unit.core.placement.nodes_made import GIB, Ledgers, gpus, nodes_of, row, shape

from towline.core.commands import Submit
from towline.core.entries import Node
from towline.core.placement import classes
from towline.core.placement.choosing.rules import Rules
from towline.core.placement.nodes import Nodes
from towline.core.placement.policies import headroom
from towline.core.placement.policies.headroom import Headroom
from towline.core.placement.shape import Shape
from towline.core.pool import Pool
from towline.core.rows import NodeRow
from towline.model.job import Gpu, JobSpec, Resources


def gpu_row(name: str, cpu_milli: int, *models: str) -> NodeRow:
    return row(name, cpu_milli=cpu_milli, memory_bytes=1024 * GIB, pids=10_000, gpus=gpus(*models))


def asks(cpu_milli: int, count: int = 1, milli: int = 1000, model: tuple[str, ...] = ()) -> Shape:
    return shape(cpu_milli=cpu_milli, pids=1, gpu=Gpu(count=count, milli=milli, model=model))


def pool(*rows: NodeRow) -> tuple[Nodes, Headroom]:
    policy = Headroom()
    return nodes_of(*rows, rules=Rules(policy=policy)), policy


def queue(policy: Headroom, *counts: tuple[Shape, int]) -> None:
    for asked, count in counts:
        policy.observe(asked, count)


def best(nodes: Nodes, asked: Shape) -> int:
    return nodes.room(asked, 1)[0][0]


def check_memory(nodes: Nodes, policy: Headroom, asked: Shape) -> None:
    """Scores, and what is remembered of nodes, are to the last bit what the definition says."""
    columns = [column for column, _ in nodes.room(asked)]
    kept = policy.scores(nodes, asked, np.array(columns, dtype=np.int64))
    assert kept.dtype == np.int64
    assert kept.tolist() == slow_headroom.scores(nodes, policy, asked, columns)
    assert policy._headroom.tolist() == slow_headroom.headroom_of(nodes, policy)
    assert len(policy._adopted) == len(policy._folded) == policy._kinds.n


def test_a_machine_stays_whole_for_what_needs_all_of_it() -> None:
    nodes, policy = pool(gpu_row("whole", 64_000, *["T4"] * 4), gpu_row("used", 64_000, *["T4"] * 4))
    one, four = asks(4000), asks(4000, count=4)
    queue(policy, (one, 30), (four, 10))
    nodes.take(1, one, 1)
    assert best(nodes, one) == 1


def test_machines_stay_empty_before_anything_large_was_seen() -> None:
    nodes, policy = pool(gpu_row("whole", 64_000, *["T4"] * 4), gpu_row("used", 64_000, *["T4"] * 4))
    one = asks(1000)
    nodes.take(1, one, 1)
    assert policy.profile.total == 0
    assert best(nodes, one) == 1


def test_a_scarce_model_is_kept_for_those_who_need_it() -> None:
    rows = [
        gpu_row("scarce", 32_000, "A100", "A100"),
        *(gpu_row(f"n{at}", 32_000, "T4", "T4") for at in "12345"),
    ]
    nodes, policy = pool(*rows)
    anyone, picky = asks(2000), asks(2000, model=("A100",))
    queue(policy, (anyone, 40), (picky, 10))
    assert best(nodes, anyone) != 0
    assert best(nodes, picky) == 0


def test_cpus_beside_free_devices_are_kept() -> None:
    """What asks for no GPU goes where the devices are taken, though the other node is as full."""
    nodes, policy = pool(gpu_row("free", 32_000, "T4", "T4"), gpu_row("taken", 48_000, "T4", "T4"))
    one, plain = asks(8000), shape(cpu_milli=16_000, pids=1)
    queue(policy, (one, 40))
    nodes.take(1, asks(16_000, count=2), 1)
    assert nodes.free_cpu_milli.tolist() == [32_000, 32_000]
    assert best(nodes, plain) == 1


def test_shares_are_put_where_the_rest_is_of_use() -> None:
    """0.3 of a device beside 0.4 leaves a rest that two others of 0.15 fill; beside 0.65 next to nothing."""
    nodes, policy = pool(gpu_row("a", 64_000, "T4"), gpu_row("b", 64_000, "T4"))
    long, short = asks(100, milli=650), asks(100, milli=350)
    queue(policy, (long, 500), (short, 500))
    nodes.take(0, asks(100, milli=500), 1)
    nodes.take(1, long, 1)
    assert best(nodes, short) == 1


def test_equal_nodes_go_in_the_order_of_their_columns() -> None:
    nodes, policy = pool(*(gpu_row(f"n{at}", 16_000, "T4", "T4") for at in range(5)))
    one = asks(3152, milli=810)
    queue(policy, (one, 100), (asks(8000), 100))
    assert [column for column, _ in nodes.room(one)] == [0, 1, 2, 3, 4]


def test_a_second_pool_is_not_taken_for_the_first() -> None:
    nodes, policy = pool(gpu_row("a", 16_000, "T4", "T4"))
    one = asks(1000)
    queue(policy, (one, 64))
    assert best(nodes, one) == 0
    other = nodes_of(gpu_row("b", 500, "T4"), gpu_row("c", 16_000, "T4"), rules=Rules(policy=policy))
    assert best(other, one) == 1


def test_more_kinds_than_there_are_columns_count_as_those_most_like_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(headroom, "MAX_KINDS", 3)
    nodes, policy = pool(gpu_row("a", 64_000, *["T4"] * 8), gpu_row("b", 64_000, *["T4"] * 8))
    queue(policy, *((asks(1000 + at), 10) for at in range(8)))
    assert best(nodes, asks(1000)) == 0
    assert policy._kinds.n == 3
    known = sum(seen.count for seen in policy._adopted if seen is not None)
    assert known + policy._folded.sum() == policy.profile.total == 80


shapes = st.builds(
    lambda cpu, device, model: asks(cpu, *device, model=model),
    st.sampled_from([500, 2000, 3000, 8000]),
    st.sampled_from([(1, 1000), (1, 1000), (2, 1000), (4, 1000), (1, 500), (1, 300), (1, 810)]),
    st.sampled_from([(), (), ("T4",), ("A100",)]),
) | st.builds(lambda cpu: shape(cpu_milli=cpu, pids=1), st.sampled_from([500, 4000]))
rows = st.builds(
    lambda cpu, count, model: (cpu, [model] * count),
    st.sampled_from([4000, 16_000, 32_000]),
    st.integers(0, 4),
    st.sampled_from(["T4", "A100"]),
)


@settings(deadline=None, max_examples=60)
@given(
    made=st.lists(rows, min_size=1, max_size=5),
    later=st.lists(rows, max_size=2),
    steps=st.lists(st.tuples(shapes, st.integers(1, 30), st.booleans()), max_size=20),
    kept=st.sampled_from([0, 2, 1024]),
)
def test_scores_are_what_the_definition_says(
    made: list[tuple[int, list[str]]],
    later: list[tuple[int, list[str]]],
    steps: list[tuple[Shape, int, bool]],
    kept: int,
) -> None:
    with mock.patch.object(classes, "KEPT_EMPTY", kept):
        check_steps(made, later, steps)


def check_steps(
    made: list[tuple[int, list[str]]],
    later: list[tuple[int, list[str]]],
    steps: list[tuple[Shape, int, bool]],
) -> None:
    nodes, policy = pool(*(gpu_row(f"n{at}", cpu, *models) for at, (cpu, models) in enumerate(made)))
    ledgers = Ledgers(nodes)
    for at, (asked, count, ends) in enumerate(steps):
        policy.observe(asked, count)
        ledgers.place(asked, 1)
        if ends and ledgers.held:
            ledgers.end(count)
        if at == len(steps) // 2:
            for cpu, models in later:
                nodes.add(
                    Node(row=gpu_row(f"m{nodes.n}", cpu, *models), column=nodes.n, connected=True, heard_at=0)
                )
        ledgers.check()
        check_memory(nodes, policy, asked)


_SCRIPT = """
from tests.unit.core.placement.test_policies import asks, gpu_row, pool
nodes, policy = pool(*(gpu_row(f"n{at}", 8000 * (1 + at % 3), *["T4"] * (1 + at % 4)) for at in range(12)))
mix = [asks(3152, milli=810), asks(11_300), asks(4000, milli=230), asks(8000, milli=470), asks(2000, count=2)]
placed = []
for at in range(200):
    asked = mix[at * at % len(mix)]
    policy.observe(asked, 1)
    for column, _ in nodes.room(asked, 1):
        placed.append((column, nodes.take(column, asked, 1)))
print(placed)
"""


def test_the_same_under_every_hash_seed() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "src:."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    assert found.pop().count("(") >= 20


def test_a_pool_learns_from_every_task_that_comes_and_from_no_plan() -> None:
    policy = Headroom()
    pool = Pool.load(empty(), 0, Rules(policy=policy))
    one, two = (Resources(cpu_milli=1000, memory_bytes=GIB, pids=1, gpu=Gpu(count=count)) for count in (1, 2))
    spec = JobSpec(name="j", tasks={"a": task(size=3, resources=one), "b": task(size=5, resources=two)})
    pool.plan(spec, "default")
    assert policy.profile.total == 0
    pool.apply(Submit(job="j", namespace="default", spec=spec), 1)
    assert [(seen.shape.gpu_count, seen.count) for seen in policy.profile.kinds.values()] == [(1, 3), (2, 5)]
