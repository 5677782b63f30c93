"""The node lease's rules, and when a silent node's attempts are lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.core.lease import (
    DRIFT_MS,
    NONE,
    OTHER_ENFORCER_MS,
    Lease,
    Silence,
    check_times,
    grace_left_ms,
    is_overdue,
    may_start,
    reconnect_ms,
    renewed,
    short_for,
)

HELD = Lease(term=3, since_ms=1_000, until_ms=21_000, grace_ms=3_000)


def test_an_answer_moves_the_end_from_when_the_heartbeat_was_sent() -> None:
    assert renewed(NONE, 3, 1_000, 20_000, 3_000) == HELD
    assert renewed(HELD, 3, 5_000, 20_000, 3_000) == Lease(3, 1_000, 25_000, 3_000)


@pytest.mark.parametrize(("term", "sent_ms"), [(3, 1_000), (3, 999), (2, 5_000), (1, 90_000)])
def test_late_answers_and_deposed_leaders_change_nothing(term: int, sent_ms: int) -> None:
    assert renewed(HELD, term, sent_ms, 20_000, 3_000) == HELD


def test_a_new_leader_may_grant_less() -> None:
    assert renewed(HELD, 4, 500, 20_000, 3_000) == Lease(4, 1_000, 20_500, 3_000)


def test_a_gap_begins_a_new_row() -> None:
    assert renewed(HELD, 3, 20_999, 20_000, 3_000).since_ms == 1_000
    later = renewed(HELD, 3, 21_000, 20_000, 3_000)
    assert later.since_ms == 21_000
    assert may_start(later, 21_000, 21_001)
    assert not may_start(later, 1_000, 21_001)  # its leader may have placed it elsewhere in between


def test_nothing_starts_at_or_after_the_end() -> None:
    assert may_start(HELD, 1_000, 20_999)
    assert not may_start(HELD, 1_000, 21_000)
    assert not may_start(NONE, 0, 0)


@pytest.mark.parametrize(
    ("own_ms", "now_ms", "left_ms"),
    [(10_000, 21_000, 3_000), (500, 21_000, 500), (10_000, 23_900, 100), (10_000, 60_000, 0)],
)
def test_the_grace_is_capped_and_counts_from_the_end(own_ms: int, now_ms: int, left_ms: int) -> None:
    assert grace_left_ms(HELD, own_ms, now_ms) == left_ms


def test_the_other_enforcer_waits_for_the_first() -> None:
    due_ms = 24_000 + OTHER_ENFORCER_MS
    assert not is_overdue(HELD, due_ms - 1)
    assert is_overdue(HELD, due_ms)
    assert OTHER_ENFORCER_MS < DRIFT_MS


def test_a_lease_must_end_before_the_loss() -> None:
    check_times(20_000, 3_000, 24_001)
    with pytest.raises(ValueError, match=r"node_lease \(20 s\) \+ lease_grace \(3 s\).*lost_after \(24 s\)"):
        check_times(20_000, 3_000, 24_000)


def test_what_silence_means() -> None:
    silence = Silence(25_000, 3_000, leased=True)
    assert [silence.after_ms(policy) for policy in ("keep", "stop", "wait")] == [3_000, 25_000, None]
    assert silence.first_ms == 3_000
    assert Silence().after_ms("stop") is None  # on one machine alone nothing would have stopped it


@given(st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 60_000), st.booleans()), max_size=30))
def test_a_lease_ends_before_its_leader_gives_up(beats: list[tuple[int, int, bool]]) -> None:
    """Whatever comes late or never arrives."""
    at_ms, held, heard_ms = 0, NONE, [0]
    for gap_ms, late_ms, answer_arrives in beats:
        at_ms += gap_ms
        heard_ms.append(at_ms + late_ms)
        if answer_arrives:
            before = held
            held = renewed(held, 1, at_ms, 20_000, 3_000)
            if held.since_ms == before.since_ms and held != before != NONE:
                assert at_ms < before.until_ms
    if held is not NONE:
        assert held.until_ms + held.grace_ms + DRIFT_MS < max(heard_ms) + 25_000


def test_more_nodes_need_a_longer_lease() -> None:
    assert reconnect_ms(200) == 3_000
    assert short_for(1_000, 20_000, 2_000) is None
    said = short_for(2_000, 20_000, 2_000)
    assert said is not None
    assert said.startswith("after a restart of the server it may take 24 s until 2000 nodes are linked again")
    assert "Raise node_lease" in said
    assert short_for(2_000, 24_000, 2_000) is not None  # it has to be more, not as much
    assert short_for(2_000, 24_001, 2_000) is None


def test_one_node_is_told_of_as_one() -> None:
    assert "until one node is linked again" in (short_for(1, 5_000, 500) or "")
