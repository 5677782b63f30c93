"""Leases in a store that several servers share, with a clock that the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from towline.coordination.port import Lease
from towline.coordination.storelease import FORGET_MS, SETTLE_MS, UNWANTED_MS, Leases
from towline.core.leadership import LEASE_MS, NOBODY, STAGGER_MS, LeaseRow, PoolLease, ServerRow
from towline.errors import StoreError
from towline.store.memory import MemoryStore


class FaultyStore(MemoryStore):
    """Can refuse to renew, or say nothing of what it has renewed."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = self.silent = False

    async def lease_renew(self, holder: str, pools: Sequence[str]) -> list[str]:
        if self.broken:
            raise StoreError("no")
        kept = await super().lease_renew(holder, pools)
        if self.silent:
            raise StoreError("its answer was lost")
        return kept


class Cluster:
    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.store = FaultyStore()
        self.waiting: list[asyncio.Task[None]] = []

    def server(self, name: str) -> Leases:
        row = ServerRow(id=name, name=name, address=f"{name}:7443", build="b", started_at=1)
        return Leases(self.store, row, lambda: self.now_ms)

    async def want(self, leases: Leases, pool: str = "p") -> Lease:
        lease: Lease = leases.lease(pool)
        self.waiting.append(asyncio.create_task(lease.acquire()))
        await asyncio.sleep(0)
        return lease

    async def holder(self, pool: str = "p") -> str:
        return {row.pool: row.lease.holder for row in await self.store.lease_read()}[pool]

    async def held_and_wanted(self) -> tuple[tuple[Leases, Lease], tuple[Leases, Lease]]:
        """Server ``a``, which has the lease, and ``b``, which would like to have it."""
        a, b = self.server("a"), self.server("b")
        held = await self.want(a)
        await a.turn()
        return (a, held), (b, await self.want(b))

    async def pass_by(self, ms: int, *servers: Leases) -> None:
        """In steps of a quarter of a second, after each of which these servers have a turn."""
        for _ in range(ms // 250):
            self.now_ms += 250
            for server in servers:
                try:
                    await server.turn()
                except StoreError:
                    continue
        await asyncio.sleep(0)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    await made.store.pool_create("p")
    yield made
    for task in made.waiting:
        task.cancel()


async def test_a_free_lease_goes_to_who_wants_it(cluster: Cluster) -> None:
    a = cluster.server("a")
    await a.turn()
    assert await cluster.holder() == NOBODY and a.leader_of("p") is None
    lease = await cluster.want(a)
    await a.turn()
    assert lease.held
    assert await cluster.holder() == "a"
    assert a.leader_of("p") is not None


async def test_it_is_kept_while_it_is_renewed_and_known_to_others(cluster: Cluster) -> None:
    (a, lease), (b, other) = await cluster.held_and_wanted()
    await cluster.pass_by(4 * LEASE_MS, a, b)
    assert lease.held and not other.held
    leader = b.leader_of("p")
    assert leader is not None and leader.address == "a:7443"
    assert not a.alone and not b.alone


async def test_after_a_death_another_server_has_it_when_its_time_is_over(cluster: Cluster) -> None:
    (a, dead), (b, other) = await cluster.held_and_wanted()
    await cluster.pass_by(1_000, a, b)
    await cluster.pass_by(LEASE_MS - 250, b)
    assert not other.held
    await cluster.pass_by(500, b)
    assert other.held and not dead.held
    assert await cluster.holder() == "b"
    assert b.alone


async def test_who_cannot_renew_has_lost_it_before_others_take_it(cluster: Cluster) -> None:
    (a, cut_off), (b, other) = await cluster.held_and_wanted()
    cluster.store.broken = True
    for _ in range(2 * LEASE_MS // 250):
        await cluster.pass_by(250, a, b)
        assert not (cut_off.held and other.held)
    assert other.held


async def test_a_renewal_without_an_answer_prolongs_nothing_for_its_holder(cluster: Cluster) -> None:
    (a, lease), (b, other) = await cluster.held_and_wanted()
    cluster.store.silent = True
    await cluster.pass_by(LEASE_MS + 250, a, b)
    assert not lease.held and not other.held
    cluster.store.silent = False


async def test_it_takes_its_own_lease_again_at_once(cluster: Cluster) -> None:
    a = cluster.server("a")
    lease = await cluster.want(a)
    await a.turn()
    cluster.now_ms += LEASE_MS
    assert not lease.held
    a.lease("p").lost()
    await cluster.want(a)
    await a.turn()
    assert lease.held


async def test_who_is_deposed_hears_of_it(cluster: Cluster) -> None:
    a = cluster.server("a")
    lease = await cluster.want(a)
    await a.turn()
    leaving = asyncio.create_task(lease.leaving())
    row = (await cluster.store.lease_read())[0].lease
    await cluster.store.lease_take(row, "b", 1)
    await cluster.pass_by(1_000, a)
    assert leaving.done() and not lease.held


async def test_given_up_it_goes_to_another_server_at_its_next_look(cluster: Cluster) -> None:
    (a, lease), (b, other) = await cluster.held_and_wanted()
    await cluster.pass_by(500, a, b)
    await lease.give_up()
    await a.close()
    await cluster.pass_by(250, b)
    assert other.held
    assert [row.id for row in await cluster.store.server_list()] == ["b"]


async def test_a_pool_moves_to_a_server_that_comes_and_stays_there(cluster: Cluster) -> None:
    a, b = cluster.server("a"), cluster.server("b")
    await cluster.store.pool_create("q")
    first, second = await cluster.want(a, "p"), await cluster.want(a, "q")
    await a.turn()
    assert first.held and second.held
    cluster.now_ms += SETTLE_MS
    await a.turn()
    leaving = asyncio.create_task(second.leaving())
    others = [await cluster.want(b, "p"), await cluster.want(b, "q")]
    await cluster.pass_by(1_000, b, a)
    assert leaving.done() and second.held  # until its leader has made its last commit
    await second.give_up()
    await cluster.want(a, "q")
    await cluster.pass_by(2 * STAGGER_MS, a, b)
    assert (first.held, second.held, *(other.held for other in others)) == (True, False, False, True)
    await cluster.pass_by(2 * SETTLE_MS, a, b)
    assert [await cluster.holder(pool) for pool in "pq"] == ["a", "b"]


async def test_a_pool_that_nobody_wants_to_lead_holds_up_no_other(cluster: Cluster) -> None:
    a, b = cluster.server("a"), cluster.server("b")
    for pool in ("q", "stopped"):
        await cluster.store.pool_create(pool)
    leases = [await cluster.want(a, pool) for pool in ("p", "q")]
    await cluster.pass_by(1_000, a)
    others = [await cluster.want(b, pool) for pool in ("p", "q")]
    for _ in range((UNWANTED_MS + LEASE_MS + 2 * SETTLE_MS) // 250):
        await cluster.pass_by(250, a, b)
        for lease in (*leases, *others):
            if lease.held and lease._leaving.is_set():  # type: ignore[attr-defined]
                await lease.give_up()
    assert sorted([await cluster.holder("p"), await cluster.holder("q")]) == ["a", "b"]
    assert await cluster.holder("stopped") == NOBODY
    cluster.waiting.append(asyncio.create_task(b.lease("stopped").acquire()))  # by one that was set right
    await asyncio.sleep(0)
    await cluster.pass_by(2 * STAGGER_MS, a, b)
    assert await cluster.holder("stopped") == "b"


async def test_what_nobody_takes_is_handed_over_ever_more_seldom(cluster: Cluster) -> None:
    a, b = cluster.server("a"), cluster.server("b")
    await cluster.store.pool_create("q")
    leases = [await cluster.want(a, pool) for pool in ("p", "q")]
    await cluster.pass_by(1_000, a, b)
    given_up = 0
    for _ in range(300_000 // 250):
        await cluster.pass_by(250, a, b)
        for lease in leases:
            if lease.held and lease._leaving.is_set():  # type: ignore[attr-defined]
                given_up += 1
                await lease.give_up()
                await cluster.want(a, lease.pool)  # type: ignore[attr-defined]
    assert 3 < given_up < 10
    assert sorted(a.held()) == ["p", "q"]
    await cluster.want(b, "q")
    for _ in range(600_000 // 250):
        await cluster.pass_by(250, a, b)
        if leases[1].held and leases[1]._leaving.is_set():  # type: ignore[attr-defined]
            await leases[1].give_up()
    assert (a.held(), b.held()) == (["p"], ["q"])


async def test_dead_servers_are_told_of_for_a_while(cluster: Cluster) -> None:
    a, b = cluster.server("a"), cluster.server("b")
    await a.turn()
    await b.turn()
    await cluster.pass_by(2 * LEASE_MS, b)
    silent = {peer.row.id: peer.live for peer in b.peers()}
    assert silent == {"a": False, "b": True}
    cluster.now_ms += FORGET_MS
    await b.turn()
    await b.turn()
    assert [peer.row.id for peer in b.peers()] == ["b"]


async def test_an_earlier_life_at_the_same_address_is_told_of_no_more(cluster: Cluster) -> None:
    before, other = cluster.server("a"), cluster.server("b")
    await before.turn()
    await other.turn()
    after = Leases(
        cluster.store,
        ServerRow(id="c", name="a", address="a:7443", build="b", started_at=2),
        lambda: cluster.now_ms,
    )
    await after.turn()
    assert [row.id for row in await cluster.store.server_list()] == ["b", "c"]


async def test_the_clock_ends_a_lease_also_where_the_store_hangs(cluster: Cluster) -> None:
    class Hanging(FaultyStore):
        async def lease_renew(self, holder: str, pools: Sequence[str]) -> list[str]:
            await asyncio.Event().wait()
            return []

    cluster.store = Hanging()
    await cluster.store.pool_create("p")
    a = cluster.server("a")
    lease = await cluster.want(a)
    await a.turn()
    assert lease.held
    running = asyncio.create_task(a.run())
    cluster.now_ms += LEASE_MS
    await asyncio.wait_for(lease.leaving(), 30)
    running.cancel()


async def test_a_release_that_comes_late_frees_nothing(cluster: Cluster) -> None:
    """The server gave it up, has not heard that it is free, and has taken it again."""
    a, b = cluster.server("a"), cluster.server("b")
    await cluster.want(a)
    await cluster.pass_by(2_000, a, b)
    late: list[LeaseRow] = []

    async def lost(expected: LeaseRow, *_: object) -> bool:
        late.append(expected)
        raise StoreError("it is on its way yet")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.store, "lease_take", lost)
        await a.lease("p").give_up()
    again = await cluster.want(a)
    await cluster.pass_by(1_000, a, b)
    assert again.held
    assert not await cluster.store.lease_take(late[0], NOBODY, 1)
    assert await cluster.holder() == "a"


def elsewhere(cluster: Cluster, name: str) -> Leases:
    """A server that looks for leases in another place."""
    row = ServerRow(
        id=name, name=name, address=f"{name}:7443", build="b", started_at=1, coordination="zk://h"
    )
    return Leases(cluster.store, row, lambda: cluster.now_ms)


async def test_nothing_is_claimed_while_a_server_lives_that_looks_for_leases_elsewhere(
    cluster: Cluster,
) -> None:
    a, other = cluster.server("a"), elsewhere(cluster, "z")
    await other.turn()
    lease = await cluster.want(a)
    await cluster.pass_by(2 * LEASE_MS, a, other)
    assert not lease.held
    await cluster.pass_by(LEASE_MS - 500, a)
    assert not lease.held
    await cluster.pass_by(1_000, a)
    assert lease.held  # it was dead: the cluster's leases were moved


async def test_a_lease_that_is_held_is_kept_when_such_a_server_comes(cluster: Cluster) -> None:
    a, other = cluster.server("a"), elsewhere(cluster, "z")
    lease = await cluster.want(a)
    await a.turn()
    await cluster.pass_by(2 * LEASE_MS, other, a)
    assert lease.held


async def test_a_server_that_ends_frees_what_a_claim_got_that_nobody_heard_of(cluster: Cluster) -> None:
    a = cluster.server("a")
    await cluster.want(a)
    await cluster.store.lease_take(LeaseRow("p"), "a", 1)
    await a.close()
    assert await cluster.holder() == NOBODY


async def test_a_server_at_this_address_that_looks_elsewhere_is_no_earlier_life(cluster: Cluster) -> None:
    """It may live: until that is known nothing is claimed."""
    row = ServerRow(id="z", name="a", address="a:7443", build="b", started_at=0, coordination="zk://h")
    await Leases(cluster.store, row, lambda: cluster.now_ms).turn()
    a = cluster.server("a")
    lease = await cluster.want(a)
    await cluster.pass_by(LEASE_MS - 500, a)
    assert not lease.held
    assert [row.id for row in await cluster.store.server_list()] == ["a", "z"]
    await cluster.pass_by(1_000, a)
    assert lease.held


async def test_who_asks_for_a_look_waits_for_no_other(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease that was freed is taken at once, not with the next look."""
    monkeypatch.setattr("towline.coordination.storelease.PATIENCE_MS", 60_000)
    a, b = cluster.server("a"), cluster.server("b")
    first = await cluster.want(a)
    await cluster.pass_by(500, a, b)
    second = await cluster.want(b)
    b._look_ms = 3_600_000
    running = asyncio.create_task(b.run())
    await b.look()
    assert first.held and not second.held
    await a.close()
    await asyncio.gather(b.look(), b.look())
    assert second.held
    running.cancel()


async def test_a_look_at_a_store_that_hangs_is_not_waited_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("towline.coordination.storelease.PATIENCE_MS", 10)
    a = cluster.server("a")

    async def hang() -> list[PoolLease]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(cluster.store, "lease_read", hang)
    running = asyncio.create_task(a.run())
    await a.look()
    running.cancel()
