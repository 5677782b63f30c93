from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from towline.core.arrays import IndexSet

spans = st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda pair: (pair[0], pair[0] + pair[1]))
steps = st.lists(st.tuples(st.booleans(), spans), max_size=40)


@given(steps, spans)
def test_it_is_a_set_of_integers(
    operations: list[tuple[bool, tuple[int, int]]], probe: tuple[int, int]
) -> None:
    ranges, model = IndexSet(), set[int]()
    for adding, (lo, hi) in operations:
        if adding:
            ranges.add(lo, hi)
            model |= set(range(lo, hi + 1))
        else:
            ranges.remove(lo, hi)
            model -= set(range(lo, hi + 1))
    flat = [index for lo, hi in ranges.ranges() for index in range(lo, hi + 1)]
    assert flat == sorted(model)
    assert len(ranges) == len(model)
    pairs = list(ranges.ranges())
    assert all(after[0] > before[1] + 1 for before, after in itertools.pairwise(pairs))
    lo, hi = probe
    inside = {index for a, b in ranges.within(lo, hi) for index in range(a, b + 1)}
    outside = {index for a, b in ranges.missing(lo, hi) for index in range(a, b + 1)}
    assert inside == model & set(range(lo, hi + 1))
    assert outside == set(range(lo, hi + 1)) - model
    assert all((index in ranges) == (index in model) for index in range(75))


@given(st.lists(spans, max_size=20), st.integers(0, 50))
def test_take_gives_the_lowest(added: list[tuple[int, int]], most: int) -> None:
    ranges = IndexSet(added)
    before = [index for lo, hi in ranges.ranges() for index in range(lo, hi + 1)]
    taken = [index for lo, hi in ranges.take(most) for index in range(lo, hi + 1)]
    assert taken == before[:most]
    assert len(ranges) == len(before) - len(taken)
