"""Ten connections a server, some of them the leader's; none is lost, whatever becomes of who used it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing
from tests.postgres import WAITING, Postgres

from towline.core.leadership import LEASE_MS, RENEW_MS, LeaseRow
from towline.errors import StoreError
from towline.store.address import Address
from towline.store.postgresql import PostgresStore
from towline.store.postgresql.connections import (
    COMMIT_S,
    LEADERS,
    OTHERS,
    SESSION,
    Connections,
    connect,
    lease_command_s,
)


async def locked(url: str, table: str) -> asyncpg.Connection[Any]:
    """A connection of somebody else, who has the table for himself until it is closed."""
    other = await asyncpg.connect(url)
    await other.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
    return other


async def waiting_for_locks(server: Postgres, count: int) -> None:
    await asyncio.to_thread(server.until_waiting, count)


async def all_at_once(*work: Coroutine[Any, Any, Any]) -> list[Any]:
    return list(await asyncio.gather(*work))


async def test_a_leader_commits_while_everybody_else_waits(server: Postgres, store: PostgresStore) -> None:
    leader = await Writing.lead(store, "default")
    other = await locked(store.address.url, "idempotency")
    asked = [asyncio.ensure_future(store.reserve([rows.reservation(f"k{n}")])) for n in range(30)]
    await waiting_for_locks(server, OTHERS)
    await leader.submit("j1", 1)
    assert await store.lease_read()
    assert not any(one.done() for one in asked)
    assert store.open_connections <= 10
    await other.close()
    assert [len(stands) for stands in await asyncio.gather(*asked)] == [1] * 30
    assert store.open_connections <= 10


async def test_leaders_of_two_pools_wait_for_nothing_of_each_other(
    server: Postgres, store: PostgresStore
) -> None:
    """One server's pool stands still in the middle of a commit; that of another one goes on."""
    other = PostgresStore(store.address.url)
    here, there = await Writing.lead(store, "here"), await Writing.lead(other, "there")
    holder = await asyncpg.connect(store.address.url)
    await holder.execute("BEGIN; SELECT FROM pool WHERE id = 'here' FOR UPDATE")
    waiting = asyncio.ensure_future(here.submit("j1", 1))
    await waiting_for_locks(server, 1)
    for seq in range(1, 20):
        await there.submit(f"k{seq}", seq)
    assert not waiting.done()
    assert int(await asyncio.to_thread(server.run, WAITING)) == 1
    await holder.close()
    await waiting
    await other.close()


@pytest.mark.parametrize("lease_ms", [2_500, LEASE_MS, 10_000, 30_000])
def test_a_command_for_leases_that_hangs_leaves_time_for_another_one(lease_ms: int) -> None:
    """Sent when the last renewal is as old as it gets, given up, and sent again in a new connection."""
    connections = Connections(Address("postgresql://u@h/d"), lease_ms)
    command_s = lease_command_s(lease_ms)
    renew_s = min(RENEW_MS, lease_ms // 5) / 1000
    assert connections.leases.command_s == command_s
    assert renew_s + 2 * command_s <= lease_ms / 1000
    assert 1 <= command_s <= COMMIT_S


async def test_a_command_for_leases_that_hangs_is_given_up_and_the_next_one_is_answered(
    server: Postgres, tmp_path: Path
) -> None:
    store = PostgresStore(server.own(tmp_path), lease_ms=2_500)
    await store.open()
    await store.pool_create("p")
    assert await store.lease_take(LeaseRow("p"), "a", 1)
    other = await locked(store.address.url, "lease")
    with pytest.raises(StoreError):
        await store.lease_renew("a", ["p"])
    await other.close()
    assert await store.lease_renew("a", ["p"]) == ["p"]
    await store.close()


async def test_fifty_at_once_use_ten_connections(server: Postgres, store: PostgresStore) -> None:
    leaders = [await Writing.lead(store, f"pool{at}") for at in range(LEADERS + 2)]

    async def lead(leader: Writing) -> None:
        for number in range(1, 20):
            await leader.commit(events=[rows.event(number)])

    async def ask(number: int) -> None:
        for turn in range(5):
            await store.reserve([rows.reservation(f"k{number}-{turn}")])
            await store.jobs("default", None, 1)
            assert store.open_connections <= 10

    await all_at_once(*map(lead, leaders), *(ask(number) for number in range(50)))
    assert [await store.counters(leader.pool) for leader in leaders] == [(1, 19)] * len(leaders)
    assert await asyncio.to_thread(server.backends) <= 10


async def test_who_is_cancelled_takes_no_connection_along(server: Postgres, store: PostgresStore) -> None:
    await store.raise_term("default")
    other = await locked(store.address.url, "job")
    for _ in range(3):
        reading = [asyncio.ensure_future(store.jobs("default", None, 1)) for _ in range(OTHERS)]
        await waiting_for_locks(server, OTHERS)
        for one in reading:
            one.cancel()
        assert all(isinstance(end, asyncio.CancelledError) for end in await _ends(reading))
    await other.close()
    assert await all_at_once(*(store.jobs("default", None, 1) for _ in range(20))) == [[]] * 20
    assert store.open_connections <= 10


async def test_a_writer_that_is_cancelled_has_written_all_the_same(
    server: Postgres, store: PostgresStore
) -> None:
    leader = await Writing.lead(store, "default")
    other = await locked(store.address.url, "node")
    waiting = asyncio.ensure_future(
        store.commit("default", leader.term, 0, rows.changes(nodes=[rows.node()]))
    )
    await waiting_for_locks(server, 1)
    waiting.cancel()
    assert isinstance((await _ends([waiting]))[0], asyncio.CancelledError)
    await other.close()
    while (await store.load("default", leader.term))[0].commit_no == 0:
        pass
    leader.commit_no = 1
    await leader.submit("j1", 1)
    assert [node.id for node in await store.nodes("default")] == ["n1"]


async def _ends(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    return list(await asyncio.gather(*tasks, return_exceptions=True))


async def test_sessions_are_set_so_that_what_is_confirmed_stays(
    server: Postgres, store: PostgresStore
) -> None:
    server.run("ALTER ROLE towline SET synchronous_commit = off")
    try:
        connection = await connect(store.address)
    finally:
        server.run("ALTER ROLE towline RESET synchronous_commit")
    asked = ("synchronous_commit", "idle_in_transaction_session_timeout", "lock_timeout", "tcp_user_timeout")
    found = [await connection.fetchval(f"SHOW {name}") for name in asked[:3]]
    assert found == ["on", "5s", "10s"]
    await connection.close()


async def test_a_transaction_that_its_owner_forgot_is_ended(store: PostgresStore) -> None:
    """What would stand between a frozen server and its successor, were there such a transaction."""
    await store.raise_term("default")
    frozen = await connect(store.address, session=SESSION | {"idle_in_transaction_session_timeout": "200ms"})
    await frozen.execute("BEGIN; UPDATE pool SET commit_no = commit_no + 1")
    assert await store.raise_term("default") == 2
    assert (await store.load("default", 2))[0].commit_no == 0
    frozen.terminate()


async def test_a_closed_store_says_so(server: Postgres, tmp_path: Path) -> None:
    store = PostgresStore(server.own(tmp_path))
    await store.open()
    raising = [asyncio.ensure_future(store.raise_term("default")) for _ in range(20)]
    await asyncio.sleep(0)  # until all have been handed over
    await store.close()
    assert sorted(await asyncio.gather(*raising)) == list(range(1, 21))
    assert store.open_connections == 0
    for ask in (store.raise_term("default"), store.counters("default")):
        with pytest.raises(StoreError, match="the store is closed"):
            await ask


async def test_texts_with_what_postgresql_does_not_keep(store: PostgresStore) -> None:
    leader = await Writing.lead(store, "default")
    await leader.submit("j1", 1, message="a\0b")
    await leader.commit(elements=[rows.element("j1", 0, message="\0")], events=[rows.event(1, text="c\0d")])
    assert [row.message for row in await store.jobs("default", None, 9)] == ["a\ufffdb"]
    assert (await store.events("default", 0, 9))[0].data == {"text": "c\0d"}
    assert await store.find_jobs("default", "a\0") == []


async def test_a_value_that_no_column_holds_is_a_store_error(store: PostgresStore) -> None:
    leader = await Writing.lead(store, "default")
    await leader.submit("j1", 1)
    for wrong in (2**63, "many"):
        with pytest.raises(StoreError, match="postgresql://towline@"):
            await leader.commit(attempts=[rows.attempt("j1", 0, peak_memory_bytes=wrong)])
    await leader.commit(attempts=[rows.attempt("j1", 0, peak_memory_bytes=2**63 - 1)])
    assert store.open_connections <= 10


async def test_a_row_that_does_not_decode_takes_its_job_alone(server: Postgres, store: PostgresStore) -> None:
    leader = await Writing.lead(store, "default")
    for seq, job in enumerate(("whole", "badspec"), 1):
        await leader.submit(job, seq)
    async with store._connections.others.take() as connection:
        await connection.execute("UPDATE spec SET spec = '{' WHERE job = 'badspec'")
    snapshot, damaged = await store.load("default", leader.term)
    assert [row.id for row in snapshot.jobs] == ["whole"]
    assert list(damaged) == ["badspec"]
    with pytest.raises(StoreError, match=r"is damaged: the row job='badspec' of table spec"):
        await store.job("badspec")
