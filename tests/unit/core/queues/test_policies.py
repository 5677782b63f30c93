from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.core.expected import Expected
from towline.core.queues.age import standing
from towline.core.queues.policies.easy import Easy
from towline.core.queues.policies.easy_sjf import EasySjf
from towline.core.queues.policies.order import Item, Order, OrdersBackfill
from towline.core.queues.policies.sjf import Sjf
from towline.core.queues.policies.slowdown import Slowdown
from towline.core.queues.policies.unicef import Unicef
from towline.core.queues.policies.wfp3 import Wfp3

POLICIES: list[Order] = [Easy(), EasySjf(), Sjf(), Wfp3(), Unicef(), Slowdown()]
NOW = 1_700_000_000_000
HOUR = 3_600_000


def item(waited_h: int = 1, limit_h: int = 1, processors: int = 1) -> Item:
    limit_ms = limit_h * HOUR
    expected = Expected.of(limit_ms, limit_ms)
    return Item(
        submitted_at=NOW - waited_h * HOUR,
        limit_ms=limit_ms,
        expected=expected,
        size_milli=1000 * processors,
        standing=standing(expected, 1000 * processors),
        patient_until=NOW + HOUR,
    )


def order(policy: Order, *items: Item) -> list[int]:
    """The places in ``items`` in the order in which they go, equal ones as they were submitted."""
    return sorted(range(len(items)), key=lambda at: (policy.key(NOW, items[at]), at))


def test_names_are_distinct() -> None:
    assert len({policy.name for policy in POLICIES}) == len(POLICIES)


def test_easy_is_first_come_first_served() -> None:
    assert order(Easy(), item(1), item(5), item(5, 99)) == [1, 2, 0]


def test_easy_sjf_differs_behind_the_reservation_only() -> None:
    old_long, new_short = item(5, 9), item(1, 1)
    policy = EasySjf()
    assert policy.key(NOW, old_long) < policy.key(NOW, new_short)
    assert policy.backfill_key(NOW, old_long) > policy.backfill_key(NOW, new_short)
    assert [each.name for each in POLICIES if isinstance(each, OrdersBackfill)] == ["easy-sjf"]


def test_sjf_takes_the_shortest() -> None:
    assert order(Sjf(), item(9, 3), item(1, 2), item(2, 2)) == [2, 1, 0]


def test_wfp3_weighs_the_cube_of_the_relative_wait_by_processors() -> None:
    assert order(Wfp3(), item(2, 1, 7), item(1, 1, 60), item(2, 1, 8)) == [2, 1, 0]


def test_unicef_divides_by_the_logarithm_of_processors() -> None:
    assert order(Unicef(), item(4, 1, 16), item(3, 1, 4), item(1, 1, 2)) == [1, 0, 2]
    assert Unicef().key(NOW, item(4, 1, 1)) == Unicef().key(NOW, item(4, 1, 2))


def test_slowdown_puts_first_what_has_lost_its_patience() -> None:
    late = item(9, 99, 64)._replace(patient_until=NOW)
    assert order(Slowdown(), item(9, 1), late, item(1, 1)) == [1, 0, 2]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
@given(
    waited=st.integers(0, 10**9),
    limit_ms=st.integers(1, 10**10),
    size=st.integers(1, 10**7),
    later=st.integers(0, 10**9),
)
def test_keys_are_integers_and_equally_long(
    policy: Order, waited: int, limit_ms: int, size: int, later: int
) -> None:
    expected = Expected.of(limit_ms, limit_ms)
    one = Item(NOW - waited, limit_ms, expected, size, standing(expected, size), NOW + 1)
    keys = [policy.key(NOW, one), policy.key(NOW + later, one), policy.key(NOW, item())]
    assert len({len(key) for key in keys}) == 1
    assert all(type(part) is int for key in keys for part in key)
