"""What a pool learns of what it is asked for, and of what devices are left with."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core.placement.nodes_made import GIB, gpus, nodes_of, row, shape
from tests.unit.core.placement.slow_headroom import Left

from towline.core.placement.gpu_fit import least_level, without_whole
from towline.core.placement.leftovers import by_milli, expected_leftovers
from towline.core.placement.profile import FORGET_AT, MAX_SEEN, Profile, kind_key
from towline.model.job import Gpu


def test_only_what_asks_for_devices_is_counted() -> None:
    profile = Profile()
    profile.observe(shape(), 5)
    profile.observe(shape(gpu=Gpu(slice="1g.5gb")), 5)
    profile.observe(shape(gpu=Gpu(count=2)), 0)
    assert profile.total == 0
    profile.observe(shape(gpu=Gpu(count=2)), 5)
    assert profile.total == 5
    assert profile.devices_by_milli() == {1000: 10}


def test_kinds_differ_in_cpus_devices_models_and_much_memory() -> None:
    base = shape(gpu=Gpu(count=1))
    same = shape(gpu=Gpu(count=1), memory_bytes=GIB + GIB // 8, pids=99)
    others = [
        shape(gpu=Gpu(count=2)),
        shape(gpu=Gpu(milli=500)),
        shape(gpu=Gpu(model=("T4",))),
        shape(gpu=Gpu(memory_bytes=GIB)),
        shape(gpu=Gpu(count=1), cpu_milli=1001),
        shape(gpu=Gpu(count=1), memory_bytes=2 * GIB),
    ]
    assert kind_key(same) == kind_key(base)
    assert len({kind_key(each) for each in (base, *others)}) == 7


def test_largest_first_counts_devices() -> None:
    profile = Profile()
    half, eight, one = shape(gpu=Gpu(milli=500)), shape(gpu=Gpu(count=8)), shape(gpu=Gpu(count=1))
    for asked, count in ((half, 10), (one, 5), (eight, 2)):
        profile.observe(asked, count)
    assert [seen.shape for seen in profile.largest_first()] == [eight, half, one]


def test_the_distant_past_fades() -> None:
    profile = Profile()
    old, new = shape(gpu=Gpu(count=1)), shape(gpu=Gpu(count=2))
    profile.observe(old, FORGET_AT - 1)
    for _ in range(4):
        profile.observe(new, FORGET_AT // 2)
    assert profile.total < FORGET_AT
    assert [seen.shape for seen in profile.largest_first()] == [new, old]
    assert profile.kinds[kind_key(old)].count < FORGET_AT // 8


def test_a_million_at_once_are_counted_in_bounds() -> None:
    profile = Profile()
    profile.observe(shape(gpu=Gpu(count=1)), 10**9)
    assert FORGET_AT // 4 < profile.total < FORGET_AT


def test_kinds_are_bounded() -> None:
    profile = Profile()
    for cpu in range(MAX_SEEN + 50):
        profile.observe(shape(gpu=Gpu(count=1), cpu_milli=1000 + cpu))
    assert len(profile.kinds) == MAX_SEEN
    assert profile.total == MAX_SEEN + 50


# --- leftovers ----------------------------------------------------------------------------------------
def test_a_rest_that_nobody_asks_for_is_left_over() -> None:
    value = expected_leftovers({800: 10, 1000: 10}, None, 12)
    assert value[20] == 0.2
    assert value[0] == 0
    assert 0.05 < value[100] < 0.15


def test_what_two_fill_is_worth_more_than_what_one_leaves_half_empty() -> None:
    value = expected_leftovers({500: 100, 300: 1}, None, 12)
    assert value[50] < 0.02
    assert value[20] == 0.2
    assert value[70] > value[50]


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(st.integers(1, 1000), st.integers(1, 1000), min_size=1, max_size=12), st.integers(0, 3)
)
def test_no_more_is_left_than_there_was(asked: dict[int, int], games: int) -> None:
    value = expected_leftovers(asked, None, games)
    assert len(value) == 101
    assert all(0 <= each <= level / 100 + 1e-9 for level, each in enumerate(value))
    least = -(-min(asked) // 10)
    assert all(value[level] >= level / 100 - 1e-9 for level in range(least))
    assert expected_leftovers(dict(reversed(asked.items())), None, games) == value
    costs = by_milli(value, 1000.0)
    assert costs.dtype == np.int64
    assert len(costs) == 1001


# --- which devices an element gets --------------------------------------------------------------------
devices = st.lists(st.lists(st.sampled_from([0, 190, 500, 530, 1000]), min_size=3, max_size=3), min_size=1)


@given(devices, st.sampled_from([100, 190, 500, 999]))
def test_a_share_comes_from_the_tightest_device(rows: list[list[int]], milli: int) -> None:
    free = np.array([[*each, 1000] for each in rows], dtype=np.int64)
    levels = least_level(free, milli)
    for at, each in enumerate(free.tolist()):
        assert levels[at] == min(left for left in each if left >= milli)


@given(devices, st.integers(1, 3))
def test_whole_devices_are_the_first_that_are_free(rows: list[list[int]], count: int) -> None:
    free = np.array([[1000] * 3 + each for each in rows], dtype=np.int64)
    after = without_whole(free, count)
    for before, now in zip(free.tolist(), after.tolist(), strict=True):
        assert now == [0] * count + before[count:]


def test_what_is_left_is_what_the_ledger_leaves() -> None:
    nodes = nodes_of(row(gpus=gpus("T4", "T4", "T4"), cpu_milli=8000))
    for asked in (Gpu(milli=300), Gpu(count=1), Gpu(milli=600), Gpu(milli=200)):
        one = shape(gpu=asked)
        after = Left(nodes, 0)
        after.take(one)
        nodes.take(0, one, 1)
        now = Left(nodes, 0)
        assert now.cpu_milli == after.cpu_milli
        assert now.memory_bytes == after.memory_bytes
        assert sorted(now.free) == sorted(after.free)
