"""How long agents wait before they try to link again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from towline.core.agent.pauses import CLUSTER, LOCAL, Pauses


def test_the_bound_doubles_up_to_its_cap() -> None:
    pauses = Pauses(first_s=0.5, away_s=2.0, crowded_s=8.0)
    assert [pauses.bound_s(tries, 0) for tries in range(4)] == [0.5, 1.0, 2.0, 2.0]


def test_a_server_that_is_there_and_takes_nobody_is_left_in_peace_for_longer() -> None:
    pauses = Pauses(first_s=0.5, away_s=2.0, crowded_s=8.0)
    assert [pauses.bound_s(tries, tries) for tries in range(6)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert pauses.bound_s(9, 1) == 2.0  # one refusal among many tries


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_there_is_always_a_bound_within_the_caps(tries: int, crowded: int) -> None:
    for pauses in (LOCAL, CLUSTER):
        assert pauses.first_s <= pauses.bound_s(tries, crowded) <= max(pauses.away_s, pauses.crowded_s)
