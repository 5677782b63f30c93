"""Servers, and the leases of pools: who may take, keep and free one."""

from __future__ import annotations

import asyncio
import itertools

from msgspec import structs

from towline.core.leadership import NOBODY, LeaseRow
from towline.store.access import EnrolmentRow, TokenRow
from towline.store.coordination.rows import PoolLease, ServerRow
from towline.store.port import Store

FREE = LeaseRow("p")
HELD = LeaseRow("p", "a", 1, 100)


def server(id: str, **fields: object) -> ServerRow:
    values = {"name": "one", "address": "127.0.0.1:7400", "build": "b1", "started_at": 5}
    return ServerRow(id=id, **{**values, **fields})  # type: ignore[arg-type]


async def test_a_pool_is_made_once_and_has_a_lease_that_nobody_took(store: Store) -> None:
    assert await store.lease_read() == []
    assert await store.pool_create("p")
    assert not await store.pool_create("p")
    assert await store.raise_term("p") == 1
    assert await store.raise_term("b") == 1
    assert await store.lease_read() == [PoolLease(1, 0, LeaseRow("b")), PoolLease(1, 0, FREE)]
    assert not await store.pool_create("b")
    assert (await store.counters("p"))[0] == 1


async def test_a_lease_is_taken_from_the_state_that_was_seen(store: Store) -> None:
    await store.pool_create("p")
    assert await store.lease_take(FREE, "a", 100)
    assert await store.lease_read() == [PoolLease(0, 0, HELD)]
    assert not await store.lease_take(FREE, "b", 101)
    assert not await store.lease_take(HELD._replace(renewals=2), "b", 101)
    assert not await store.lease_take(HELD._replace(holder="c"), "b", 101)
    assert await store.lease_take(HELD._replace(taken_at=0), "b", 102)
    assert [row.lease for row in await store.lease_read()] == [LeaseRow("p", "b", 2, 102)]


async def test_of_many_who_ask_at_once_one_gets_it(store: Store) -> None:
    await store.pool_create("p")
    names = [f"s{number}" for number in range(8)]
    taken = await asyncio.gather(*(store.lease_take(FREE, name, 1) for name in names))
    assert taken.count(True) == 1
    assert (await store.lease_read())[0].lease.holder == names[taken.index(True)]


async def test_only_its_holder_renews_a_lease_and_a_free_one_is_nobodys(store: Store) -> None:
    for pool in "pqr":
        await store.pool_create(pool)
    await store.lease_take(LeaseRow("p"), "a", 1)
    await store.lease_take(LeaseRow("q"), "b", 2)
    await store.lease_take(LeaseRow("r"), "a", 3)
    assert await store.lease_renew("a", ["r", "q", "p", "none"]) == ["p", "r"]
    assert await store.lease_take(LeaseRow("r", "a", 2), NOBODY, 4)
    assert [row.lease for row in await store.lease_read()] == [
        LeaseRow("p", "a", 2, 1),
        LeaseRow("q", "b", 1, 2),
        LeaseRow("r", NOBODY, 3, 4),
    ]
    assert await store.lease_renew("a", ["r"]) == []
    assert await store.lease_renew(NOBODY, ["p"]) == []


async def test_no_state_of_a_lease_comes_twice(store: Store) -> None:
    """A claim on what was seen long ago finds another state, also after the lease was freed and taken."""
    await store.pool_create("p")
    states = [(await store.lease_read())[0].lease]
    for holder in ("a", "b", "a"):
        assert await store.lease_take(states[-1], holder, 1)
        states.append((await store.lease_read())[0].lease)
        await store.lease_renew(holder, ["p"])
        states.append((await store.lease_read())[0].lease)
        assert await store.lease_take(states[-1], NOBODY, 1)
        states.append((await store.lease_read())[0].lease)
    assert len({row.state for row in states}) == len(states)
    assert not any([await store.lease_take(row, "c", 2) for row in states[:-1]])


async def test_a_lease_fences_nothing_and_a_term_takes_no_lease(store: Store) -> None:
    await store.pool_create("p")
    await store.lease_take(FREE, "a", 100)
    assert await store.raise_term("p") == 1
    assert await store.lease_read() == [PoolLease(1, 0, HELD)]


async def test_servers_come_beat_and_go(store: Store) -> None:
    first, second = server("a"), server("b", name="two")
    await store.server_put(second)
    await store.server_put(first)
    assert await store.server_list() == [first, second]
    beaten = structs.replace(first, beats=1, address="[::1]:7400")
    await store.server_put(beaten)
    assert await store.server_list() == [beaten, second]
    assert await store.server_delete("a")
    assert not await store.server_delete("a")
    assert await store.server_list() == [second]


async def test_every_change_of_what_servers_hold_in_memory_shows(store: Store) -> None:
    states = [await store.shared_state()]
    token = TokenRow(
        id="t1", kind="join", name="", role="", namespace="*", digest=b"d", created_at=7, expires_at=None
    )
    node = EnrolmentRow(node="n1", name="one", enrolled_at=8, expires_at=9)
    for change in (
        store.token_put(token),
        store.token_use("t1", 8),
        store.token_put(structs.replace(token, id="t2", created_at=9)),
        store.token_delete("t2"),
        store.enrolment_put(node),
        store.enrolment_put(structs.replace(node, expires_at=10)),
        store.enrolment_put(structs.replace(node, enrolled_at=9, expires_at=10)),
        store.enrolment_delete("n1"),
        store.seal_put("a", "secret", "s", b"1", None, 5),
        store.seal_put("a", "secret", "s", b"2", None, 5),
        store.seal_put("b", "registry", "r", b"2", "u", 5),
        store.seal_delete("a", "secret", "s"),
    ):
        await change
        states.append(await store.shared_state())
    assert all(before != after for before, after in itertools.pairwise(states))
    assert all(type(number) is int for state in states for number in state)
    assert len(set(states)) == len(states)


async def test_a_change_shows_that_leaves_all_numbers_as_they_were(store: Store) -> None:
    """A value that is deleted, and another one put in its place; a node that comes back."""
    node = EnrolmentRow(node="n1", name="one", enrolled_at=8, expires_at=9)
    await store.seal_put("a", "secret", "s", b"1", None, 5)
    await store.enrolment_put(node)
    before = await store.shared_state()
    await store.seal_delete("a", "secret", "s")
    await store.seal_put("a", "secret", "t", b"2", None, 5)
    between = await store.shared_state()
    assert between != before
    await store.enrolment_put(structs.replace(node, name="two"))
    assert await store.shared_state() not in (before, between)


async def test_what_changes_nothing_is_no_change(store: Store) -> None:
    assert await store.seal_add("a", "secret", "s", b"1", None, 5)
    state = await store.shared_state()
    assert not await store.seal_add("a", "secret", "s", b"2", None, 6)
    assert not await store.seal_delete("a", "secret", "none")
    assert not await store.token_delete("none")
    assert not await store.token_use("none", 7)
    assert not await store.enrolment_delete("none")
    assert await store.shared_state() == state


async def test_of_many_changes_at_once_each_is_counted(store: Store) -> None:
    first = (await store.shared_state())[0]
    names = [f"s{number}" for number in range(8)]
    await asyncio.gather(*(store.seal_put("a", "secret", name, b"1", None, 5) for name in names))
    assert (await store.shared_state())[0] == first + len(names)
