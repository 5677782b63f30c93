"""Which pool gets a job that may go to several."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from towline.core.routing import NEAR, UNSERVED, Offer, best


def offer(pool: str, room: float = 1.0, backlog: float = 0.0, *, fits: bool = True) -> Offer:
    return Offer(pool=pool, fits=fits, room=room, backlog=backlog)


def test_no_pool_no_answer() -> None:
    assert best([], "j1") is None


def test_a_pool_where_it_fits_goes_before_all_others() -> None:
    offers = [offer("a", 1.0, 0.0, fits=False), offer("b", 0.0, 99.0), offer("c", 0.0, 0.0, fits=False)]
    assert best(offers, "j1") == "b"


def test_more_room_goes_before_less_work() -> None:
    assert best([offer("a", 0.4, 0.0), offer("b", 0.9, 5.0), offer("c", 0.8, 0.0)], "j1") == "b"


def test_with_the_same_room_the_least_work_decides() -> None:
    assert best([offer("a", 1.0, 0.8), offer("b", 0.98, 0.2), offer("c", 0.97, 0.6)], "j1") == "b"
    assert best([offer("a", 0.0, 7.0), offer("b", 0.0, 3.0)], "j1") == "b"


def test_where_it_fits_nowhere_it_waits_where_the_least_work_is() -> None:
    offers = [
        offer("a", 0.0, 0.9, fits=False),
        offer("b", 0.5, 0.3, fits=False),
        offer("c", 0.0, UNSERVED, fits=False),
    ]
    assert best(offers, "j1") == "b"
    assert best(offers[2:], "j1") == "c"


def test_the_lot_spreads_what_is_equal_and_is_the_same_everywhere() -> None:
    offers = [offer("a", 1.0, 0.00), offer("b", 0.97, NEAR), offer("c", 1.0, 0.02), offer("d", 1.0, 0.5)]
    drawn = Counter(best(offers, f"j{at}") for at in range(3_000))
    assert set(drawn) == {"a", "b", "c"}
    assert min(drawn.values()) > 850
    for lot in ("j1", "j2", "ü"):
        assert len({best(order, lot) for order in permutations(offers)}) == 1
    # What it is today it has to be in another process, of another version too.
    assert [best(offers, f"j{at}") for at in range(8)] == ["c", "c", "a", "b", "b", "a", "b", "a"]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 50), st.booleans()), min_size=1, max_size=8))
def test_nothing_is_better_by_more_than_what_counts_as_equal(found: list[tuple[float, float, bool]]) -> None:
    offers = {str(at): offer(str(at), *one[:2], fits=one[2]) for at, one in enumerate(found)}
    chosen = offers[best(list(offers.values()), "j1") or ""]
    assert chosen.fits == any(one.fits for one in offers.values())
    for other in offers.values():
        if other.fits != chosen.fits:
            continue
        if chosen.fits:
            assert other.room <= chosen.room + NEAR + 1e-9
        if not chosen.fits or other.room >= chosen.room:
            assert (
                other.room > chosen.room + NEAR
                or other.backlog >= chosen.backlog - NEAR - 1e-9
                or (chosen.fits and other.room < max(one.room for one in offers.values() if one.fits) - NEAR)
            )


def test_offers_travel_between_servers() -> None:
    for one in (offer("a", 1 / 3, UNSERVED), offer("b")):
        assert msgspec.json.decode(msgspec.json.encode(one), type=Offer) == one
