"""Limits by key, usage that decays, and the order inside a queue."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core.driver import Driver, empty, node_row, task
from tests.unit.core.queues.fleet import Fleet, element, machine

from towline.core import invariants
from towline.core.commands import SetQueue
from towline.core.placement.choosing.rules import Rules
from towline.core.pool import Pool
from towline.core.queues.usage import HALF_LIFE_MS, decayed, steps
from towline.model.job import Limit


def limited(key: str = "db", most: int = 2, **more: object) -> object:
    return task(limit=Limit(key=key, max=most), **more)  # type: ignore[arg-type]


def test_the_strictest_limit_of_a_key_holds_over_jobs() -> None:
    driver = Driver(node_row(cpu_milli=8000))
    driver.submit("j1", a=limited(most=3, size=10))
    driver.submit("j2", a=limited(most=2, size=1))
    driver.submit("j3", a=limited("other", most=1, size=2))
    driver.submit("j4", a=task(size=1))
    assert driver.starts() == ["j1-0-0-1", "j1-0-1-1", "j1-0-2-1", "j3-0-0-1", "j4-0-0-1"]
    driver.exit("j1-0-0-1")  # two left: as many as j2, which is alive, allows
    assert driver.starts() == []
    driver.exit("j1-0-1-1")
    assert driver.starts() == ["j1-0-3-1"]
    driver.cancel("j2")  # the stricter one is gone
    assert driver.starts() == ["j1-0-4-1"]
    driver.reload()


def test_keys_of_two_namespaces_are_two_keys() -> None:
    driver = Driver(node_row(cpu_milli=8000))
    driver.submit("j1", namespace="a", t=limited(most=1, size=3))
    driver.submit("j2", namespace="b", t=limited(most=1, size=3))
    assert driver.starts() == ["j1-0-0-1", "j2-0-0-1"]


def test_what_waits_for_a_key_lets_others_by_and_gets_it_in_order() -> None:
    driver = Driver(node_row(cpu_milli=1000))
    driver.submit("j1", a=limited(most=1, size=2))
    driver.submit("j2", a=limited(most=1))
    driver.submit("j3", priority=60, a=limited(most=1))
    driver.submit("j4", a=task(size=3))
    assert driver.starts() == ["j1-0-0-1", "j4-0-0-1"]
    driver.exit("j1-0-0-1")
    assert driver.starts() == ["j3-0-0-1"]
    driver.exit("j3-0-0-1")
    assert driver.starts() == ["j1-0-1-1"]
    driver.exit("j1-0-1-1")
    assert driver.starts() == ["j2-0-0-1"]
    driver.exit("j2-0-0-1")
    assert not driver.pool.state.limits.keys


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_limit_is_exceeded_and_none_leaks(data: st.DataObject) -> None:
    fleet = Fleet([machine(f"n{at}", cpu=4) for at in range(3)], lambda job, index: 5 + index * 7 % 31)
    fleet.step(SetQueue(name="q", max_active=4))
    for at in range(data.draw(st.integers(1, 8))):
        key = data.draw(st.sampled_from(("x", "y", None)))
        limit = Limit(key=key, max=data.draw(st.integers(1, 3))) if key else None
        spec = element(data.draw(st.sampled_from((1, 2))), size=data.draw(st.integers(1, 9)), limit=limit)
        fleet.submit(f"j{at}", spec, data.draw(st.sampled_from(("q", "default"))))
        for held in fleet.pool.state.limits.keys.values():
            assert held.holders <= max(limit.max for limit in _limits(fleet, held.key))
    while fleet.ends:
        fleet.run_until(fleet.ends[0][0])
        invariants.check(fleet.pool.state)
        assert fleet.pool.state.queues.queues["q"].active <= 4
    assert not fleet.pool.state.jobs
    assert not fleet.pool.state.limits.keys
    assert all(queue.held == [0] * 4 for queue in fleet.pool.state.queues.queues.values())


def _limits(fleet: Fleet, key: str) -> list[Limit]:
    specs = [task.spec for job in fleet.pool.state.jobs.values() for task in job.tasks]
    return [spec.limit for spec in specs if spec.limit is not None and spec.limit.key == key]


def test_who_has_used_less_goes_first_and_it_is_forgotten_by_half() -> None:
    fleet = Fleet([machine(cpu=4)], lambda job, index: 600_000)
    fleet.submit("greedy", element(size=4), namespace="a")
    fleet.run_until(fleet.now_ms + 1)
    fleet.submit("more", element(size=4), namespace="a")
    fleet.submit("less", element(size=4), namespace="b")
    fleet.run_until(fleet.now_ms + 600_000)
    begun = fleet.started[("less", 0)]
    assert all(job != "more" or at > begun for (job, _), at in fleet.started.items())
    usage = fleet.pool.state.usages.namespaces["a"]
    assert abs(usage.used - 600_000 * 1_000_000) < 600_000 * 10_000  # the whole pool for ten minutes
    later = usage.expected(fleet.now_ms + HALF_LIFE_MS, [1, 1, 1, 1], HALF_LIFE_MS)
    assert abs(later * 2 - usage.used) <= usage.used // 1000


def test_usage_decays_alike_in_many_steps_and_in_one() -> None:
    begin, used = 1_700_000_000_000, 10**15
    in_steps = used
    for at in range(begin, begin + HALF_LIFE_MS, 3_600_000):
        count = steps(at + 3_600_000, HALF_LIFE_MS) - steps(at, HALF_LIFE_MS)
        in_steps = decayed(in_steps, count)
    at_once = decayed(used, steps(begin + HALF_LIFE_MS, HALF_LIFE_MS) - steps(begin, HALF_LIFE_MS))
    assert abs(at_once - used // 2) <= 1
    assert abs(in_steps - at_once) < used // 10**6


def test_usage_is_the_same_after_a_reload() -> None:
    driver = Driver()
    driver.submit("j1", namespace="a", a=task(size=3))
    driver.tick(60_000)
    driver.exit("j1-0-0-1")
    driver.tick(1_000)
    state = driver.pool.state
    expected = state.usages.namespaces["a"].expected(driver.now_ms, state.capacity, HALF_LIFE_MS)
    driver.reload()
    state = driver.pool.state
    assert state.usages.namespaces["a"].expected(driver.now_ms, state.capacity, HALF_LIFE_MS) == expected > 0


def test_the_first_in_line_is_not_overtaken_under_a_maximum() -> None:
    """What a large element lacks of its queue's maximum is kept for it."""
    fleet = Fleet([machine(cpu=16)], lambda job, index: 10_000 + 100 * index)
    fleet.step(SetQueue(name="q", maximum={"cpu": 4000}))
    fleet.submit("small", element(1, size=4), "q")
    fleet.submit("large", element(4, size=1), "q", priority=60)
    fleet.submit("later", element(1, size=50), "q")
    fleet.run_until(fleet.now_ms + 60_000)
    assert fleet.started[("large", 0)] < fleet.started[("later", 0)]


def test_the_half_life_is_the_pools() -> None:
    fast = Pool.load(empty(), 0, Rules(half_life_ms=3_600_000))
    usual = Pool.load(empty(), 0)
    assert [view.usage_half_life_s for pool in (fast, usual) for view in pool.queues_view()] == [3600, 86_400]
    left = []
    for pool in (fast, usual):
        usage = pool.state.usages.of("a", 0)
        usage.used = 1 << 40
        left.append(usage.expected(3_600_000, [1, 1, 1, 1], pool.state.usages.half_life_ms))
    assert left[0] == 1 << 39
    assert left[1] > 0.97 * (1 << 40)
