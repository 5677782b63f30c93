from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from towline.core.expected import (
    BUCKETS,
    MAX_KINDS,
    SLOWDOWN_FLOOR_MS,
    URGENCY_SCALE,
    Expected,
    Lengths,
    bucket_of,
)

SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
KINDS = (("team",), ("team", "train"))

runs = st.lists(st.integers(0, 30 * 24 * HOUR), min_size=1, max_size=60)
limits = st.none() | st.integers(1, 10 * 24 * HOUR)


def learnt(*run_times_ms: int) -> Lengths:
    lengths = Lengths()
    for run_ms in run_times_ms:
        lengths.learn(KINDS, run_ms)
    return lengths


def known(lengths: Lengths, limit_ms: int | None = None) -> Expected:
    found = lengths.expected(KINDS, None, limit_ms)
    assert found is not None
    return found


def test_nothing_is_known_until_somebody_says_or_shows_it() -> None:
    lengths = Lengths()
    assert lengths.expected(KINDS, None, None) is None
    limited = lengths.expected(KINDS, None, HOUR)
    assert limited is not None
    assert limited.mean_ms == HOUR
    lengths.learn([("others",)], MINUTE)
    assert 40 * SECOND < known(lengths).mean_ms < 90 * SECOND  # judged by the pool


def test_what_a_task_expects_of_itself_is_believed_within_its_timeout() -> None:
    lengths = learnt(SECOND, SECOND)
    stated = lengths.expected(KINDS, 20 * MINUTE, None)
    assert stated is not None
    assert stated.mean_ms == stated.total_ms(0) == stated.total_ms(19 * MINUTE) == 20 * MINUTE
    capped = lengths.expected(KINDS, 20 * MINUTE, 5 * MINUTE)
    assert capped is not None
    assert capped.mean_ms == 5 * MINUTE


def test_past_attempts_of_the_task_weigh_more_than_those_of_its_namespace() -> None:
    lengths = Lengths()
    for _ in range(30):
        lengths.learn((("team",), ("team", "clean")), 2 * SECOND)
        lengths.learn(KINDS, HOUR)
    train, clean, new = (
        lengths.expected((("team",), ("team", name)), None, None) for name in ("train", "clean", "new")
    )
    assert train is not None and clean is not None and new is not None
    assert clean.mean_ms < new.mean_ms < train.mean_ms
    assert clean.urgency > new.urgency > train.urgency


def test_recent_attempts_weigh_more() -> None:
    assert (
        known(learnt(*[HOUR] * 20, *[MINUTE] * 20)).mean_ms
        < known(learnt(*[MINUTE] * 20, *[HOUR] * 20)).mean_ms
    )


def test_an_attempt_that_outlives_the_short_ones_is_one_of_the_long() -> None:
    expected = known(learnt(*[10 * SECOND, 8 * HOUR] * 20))
    assert 3 * HOUR < expected.mean_ms < 5 * HOUR
    assert 7 * HOUR < expected.total_ms(MINUTE) < 10 * HOUR


def test_what_outlives_all_that_is_known_runs_as_long_again_within_its_timeout() -> None:
    expected = known(learnt(MINUTE), 10 * HOUR)
    assert expected.total_ms(2 * HOUR) == 4 * HOUR
    assert expected.total_ms(6 * HOUR) == 10 * HOUR
    assert expected.total_ms(11 * HOUR) == 11 * HOUR + 1


def test_a_promise_goes_by_the_timeout() -> None:
    lengths = learnt(MINUTE)
    assert known(lengths, HOUR).longest_ms(0) == HOUR
    assert known(lengths, HOUR).longest_ms(2 * HOUR) == 2 * HOUR + 1
    assert known(lengths).longest_ms(HOUR) == 2 * HOUR


def test_urgency_has_the_floor_of_bounded_slowdown() -> None:
    assert Expected.of(1, None).urgency == Expected.of(SLOWDOWN_FLOOR_MS, None).urgency
    assert Expected.of(20_000, None).urgency == URGENCY_SCALE // 20_000


def test_records_are_bounded_and_the_pool_keeps_its_own() -> None:
    lengths = Lengths()
    for number in range(MAX_KINDS + 5):
        lengths.learn([(str(number),)], MINUTE)
        lengths.learn([("0",)], MINUTE)
    kept = [kind for kind, _, _ in lengths.dump()]
    assert len(kept) == MAX_KINDS + 1
    assert () in kept and ("0",) in kept and ("1",) not in kept and ("6",) in kept


def test_a_version_rises_with_what_is_learnt_of_the_kind() -> None:
    lengths = learnt(*[MINUTE] * 70)
    before = lengths.version(KINDS)
    lengths.learn([("others",)], MINUTE)
    assert lengths.version(KINDS) == before  # the pool's record is read again at every 64th
    lengths.learn(KINDS, MINUTE)
    assert lengths.version(KINDS) > before


@given(st.integers(0, 1 << 50))
def test_buckets_are_half_octaves(length_ms: int) -> None:
    at = bucket_of(length_ms)
    if 0 < at < BUCKETS - 1:
        assert 2**at <= length_ms**2 < 2 ** (at + 1)


@given(runs, limits, st.integers(0, 40 * 24 * HOUR))
def test_an_expectation_lies_within_what_is_possible(
    run_times: list[int], limit_ms: int | None, elapsed_ms: int
) -> None:
    expected = known(learnt(*run_times), limit_ms)
    assert 1 <= expected.mean_ms <= (limit_ms or 1 << 38)
    assert 1 <= expected.urgency <= URGENCY_SCALE // SLOWDOWN_FLOOR_MS
    total = expected.total_ms(elapsed_ms)
    assert total > elapsed_ms
    assert limit_ms is None or total <= max(limit_ms, elapsed_ms + 1)
    # Having run longer never makes an end come sooner, but for rounding.
    assert expected.total_ms(elapsed_ms + 1) >= total - 1


@given(runs, limits)
def test_what_is_dumped_and_loaded_answers_alike(run_times: list[int], limit_ms: int | None) -> None:
    first, second, loaded = learnt(*run_times), learnt(*run_times), Lengths()
    loaded.load(first.dump())
    assert loaded.dump() == first.dump() == second.dump()
    assert known(first, limit_ms).mean_ms == known(second, limit_ms).mean_ms
    if len(run_times) <= 2:  # until then the pool's record does not lag
        assert known(loaded, limit_ms).mean_ms == known(first, limit_ms).mean_ms
