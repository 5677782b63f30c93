from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from towline.core.backfill import NEVER_MS, Releases, Timetable

Amounts = tuple[int, int]


@dataclass(frozen=True)
class Running:
    column: int
    ends_at: int
    asked: Amounts


def releases(running: list[Running]) -> Releases:
    return Releases(
        np.array([one.column for one in running], dtype=np.int64),
        np.array([one.ends_at for one in running], dtype=np.int64),
        np.array([one.asked for one in running], dtype=np.int64).reshape(len(running), 2).T,
    )


def timetable(free: list[Amounts], running: list[Running]) -> Timetable:
    return Timetable(np.array(free, dtype=np.int64).T, releases(running))


def free_at(free: list[Amounts], running: list[Running], column: int, at_ms: int) -> Amounts:
    """What is free on a node at a time, when lengths are true; by plain counting."""
    back = [one.asked for one in running if one.column == column and one.ends_at <= at_ms]
    cpu, memory = free[column]
    return cpu + sum(asked[0] for asked in back), memory + sum(asked[1] for asked in back)


def fits(asked: Amounts, free: Amounts) -> bool:
    return asked[0] <= free[0] and asked[1] <= free[1]


def test_the_earliest_node_is_reserved() -> None:
    running = [Running(0, 50, (4, 0)), Running(1, 20, (2, 0)), Running(1, 40, (2, 0))]
    table = timetable([(0, 9), (1, 9)], running)
    held = table.reserve((4, 1))
    assert held is not None
    assert (held.column, held.at_ms, held.spare) == (1, 40, (1, 8))


def test_equal_times_go_to_the_node_that_is_left_with_the_least() -> None:
    running = [Running(0, 50, (6, 0)), Running(1, 50, (5, 0)), Running(2, 50, (5, 0))]
    held = timetable([(0, 9), (0, 9), (0, 9)], running).reserve((4, 1))
    assert held is not None
    assert held.column == 1


def test_all_that_ends_at_one_time_counts() -> None:
    held = timetable([(0, 9)], [Running(0, 50, (3, 0)), Running(0, 50, (3, 0))]).reserve((3, 1))
    assert held is not None
    assert held.spare == (3, 8)


def test_what_never_fits_or_never_ends_gets_no_reservation() -> None:
    assert timetable([(0, 9)], [Running(0, 50, (3, 0))]).reserve((4, 1)) is None
    assert timetable([(0, 9)], [Running(0, NEVER_MS, (4, 0))]).reserve((4, 1)) is None
    assert timetable([(0, 9)], []).reserve((4, 1)) is None


def test_nodes_that_are_not_allowed_are_not_reserved() -> None:
    table = timetable([(0, 9), (0, 9)], [Running(0, 50, (4, 0)), Running(1, 60, (4, 0))])
    held = table.reserve((4, 1), np.array([False, True]))
    assert held is not None
    assert held.column == 1


def test_what_ends_in_time_or_leaves_room_may_start() -> None:
    table = timetable([(2, 9), (2, 9)], [Running(0, 50, (4, 0))])
    table.reserve((5, 1))
    assert table.may_start((2, 1), 0, 50)
    assert not table.may_start((2, 1), 0, 51)
    assert table.may_start((1, 1), 0, 51)
    assert table.open_to((2, 1), 51).tolist() == [False, True]
    assert table.room_beside((1, 1), 0, 51) == 1
    assert table.room_beside((1, 1), 0, 50) > 1
    table.start((1, 1), 0, 51)
    assert not table.may_start((1, 1), 0, 51)
    assert table.room_beside((1, 1), 0, 51) == 0


def test_a_second_reservation_stands_behind_the_first() -> None:
    running = [Running(0, 50, (4, 0)), Running(0, 80, (4, 0))]
    table = timetable([(0, 9)], running)
    first, second = table.reserve((4, 1)), table.reserve((3, 1))
    assert first is not None and second is not None
    assert (first.at_ms, second.at_ms) == (50, 80)


def test_a_second_reservation_that_is_earlier_takes_nothing_from_the_first() -> None:
    running = [Running(0, 20, (2, 0)), Running(0, 50, (2, 0))]
    table = timetable([(0, 9)], running)
    first = table.reserve((4, 1))
    assert first is not None and first.at_ms == 50
    assert table.reserve((2, 1)) is None  # from 50 on nothing is left


amounts = st.tuples(st.integers(1, 6), st.integers(1, 6))
nodes = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=4)
attempts = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30), amounts), max_size=10)
queue = st.lists(st.tuples(amounts, st.integers(1, 40)), max_size=12)


@given(nodes, attempts, st.lists(amounts, min_size=1, max_size=4), queue)
def test_backfill_never_delays_a_reservation_computed_with_true_lengths(
    free: list[Amounts],
    started: list[tuple[int, int, Amounts]],
    heads: list[Amounts],
    behind: list[tuple[Amounts, int]],
) -> None:
    running = [Running(column % len(free), ends_at, asked) for column, ends_at, asked in started]
    table = timetable(free, running)
    for asked in heads:
        if not any(fits(asked, room) for room in free):
            table.reserve(asked)
    free = list(free)
    for asked, ends_at in behind:
        for column, room in enumerate(free):
            if fits(asked, room) and table.may_start(asked, column, ends_at):
                assert table.open_to(asked, ends_at)[column]
                assert table.room_beside(asked, column, ends_at) >= 1
                table.start(asked, column, ends_at)
                running.append(Running(column, ends_at, asked))
                free[column] = (room[0] - asked[0], room[1] - asked[1])
                break
    for held in table.reservations:
        room = free_at(free, running, held.column, held.at_ms)
        earlier = [
            one.asked for one in table.reservations if one.column == held.column and one.at_ms <= held.at_ms
        ]
        needed = (sum(asked[0] for asked in earlier), sum(asked[1] for asked in earlier))
        assert fits(needed, room)


@given(nodes, attempts, amounts)
def test_a_first_reservation_is_the_earliest_there_is(
    free: list[Amounts], started: list[tuple[int, int, Amounts]], asked: Amounts
) -> None:
    running = [Running(column % len(free), ends_at, held) for column, ends_at, held in started]
    if any(fits(asked, room) for room in free):
        return
    reservation = timetable(free, running).reserve(asked)
    places = [one.ends_at for one in running if fits(asked, free_at(free, running, one.column, one.ends_at))]
    assert (reservation.at_ms if reservation else None) == min(places, default=None)
    reversed_order = timetable(free, running[::-1]).reserve(asked)
    assert reversed_order == reservation


@given(nodes, attempts, amounts, queue)
def test_masks_and_single_answers_agree(
    free: list[Amounts],
    started: list[tuple[int, int, Amounts]],
    head: Amounts,
    behind: list[tuple[Amounts, int]],
) -> None:
    running = [Running(column % len(free), ends_at, held) for column, ends_at, held in started]
    table = timetable(free, running)
    table.reserve(head)
    for asked, ends_at in behind:
        mask = table.open_to(asked, ends_at)
        assert mask.tolist() == [table.may_start(asked, column, ends_at) for column in range(len(free))]
        assert mask.tolist() == [table.room_beside(asked, column, ends_at) > 0 for column in range(len(free))]
