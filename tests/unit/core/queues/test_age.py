from __future__ import annotations

from math import log2

from hypothesis import given
from hypothesis import strategies as st

from towline.core.expected import Expected
from towline.core.queues.age import Backlog, age_key, log2_1024ths, standing

SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
FOREVER = 1 << 60

lengths = st.integers(SECOND, 30 * 24 * HOUR)


def key(waited_ms: int, length_ms: int, size: int = 1, patient_until: int = FOREVER) -> tuple[int, int]:
    fixed = standing(Expected.of(length_ms, None), size)
    return age_key(1_000_000_000, 1_000_000_000 - waited_ms, patient_until, fixed)


@given(st.integers(1, 1 << 62))
def test_the_logarithm_is_close_and_never_above(value: int) -> None:
    assert -1e-6 <= 1024 * log2(value) - log2_1024ths(value) < 3


@given(st.integers(1, 1 << 62), st.integers(1, 1 << 20))
def test_the_logarithm_never_falls(value: int, more: int) -> None:
    assert log2_1024ths(value + more) >= log2_1024ths(value)


@given(lengths, st.integers(0, HOUR), st.integers(1, 24 * HOUR))
def test_what_has_waited_longer_is_never_behind_its_equal(length_ms: int, waited: int, more: int) -> None:
    assert key(waited + more, length_ms) <= key(waited, length_ms)


@given(lengths, st.integers(0, 24 * HOUR))
def test_the_shorter_goes_first_and_of_equals_the_smaller(length_ms: int, waited_ms: int) -> None:
    assert key(waited_ms, length_ms) < key(waited_ms, 2 * length_ms)
    assert key(waited_ms, length_ms, 1) < key(waited_ms, length_ms, 4)


def test_long_waiting_outweighs_length() -> None:
    assert key(24 * HOUR, 2 * HOUR) < key(MINUTE, 10 * MINUTE)


def test_of_unknown_length_is_taken_for_a_minute() -> None:
    assert standing(None, 3) == standing(Expected.of(MINUTE, None), 3)


def test_what_has_lost_its_patience_goes_first_in_the_order_in_which_it_did() -> None:
    now_ms = 1_000_000_000
    first, second = key(HOUR, 24 * HOUR, 99, now_ms - 5), key(10 * HOUR, SECOND, 1, now_ms)
    assert first < second < key(100 * HOUR, SECOND)


def test_patience_is_the_time_to_drain_what_is_ahead_and_once_the_own_length() -> None:
    backlog = Backlog()
    assert backlog.patience_ms(0, HOUR, 100) == HOUR
    backlog.queued(50, 2 * HOUR, count=3)
    assert backlog.patience_ms(0, HOUR, 100) == 3 * HOUR + HOUR
    backlog.queued(50, 2 * HOUR, count=-1)
    backlog.started(50, 2 * HOUR)
    assert backlog.patience_ms(0, HOUR, 100) == 3 * HOUR + HOUR
    assert backlog.patience_ms(HOUR, HOUR, 100) == 2 * HOUR + HOUR // 2 + HOUR
    backlog.ended(50, 2 * HOUR)
    assert backlog.patience_ms(HOUR, HOUR, 100) == 2 * HOUR + HOUR


@given(st.lists(st.tuples(st.integers(1, 99), lengths, st.integers(0, 5)), max_size=20))
def test_a_backlog_that_has_been_served_is_empty(work: list[tuple[int, int, int]]) -> None:
    backlog = Backlog()
    for size, length_ms, count in work:
        backlog.queued(size, length_ms, count)
    for size, length_ms, count in work:
        for at in range(count):
            backlog.queued(size, length_ms, -1)
            backlog.started(size, at + length_ms)
    for size, length_ms, count in work:
        for at in range(count):
            backlog.ended(size, at + length_ms)
    assert backlog.patience_ms(0, 7, 100) == 7
