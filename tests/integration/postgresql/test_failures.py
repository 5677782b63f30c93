"""PostgreSQL that is away, full, refuses or has moved: a sentence with the remedy, and no help to come
back."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from signal import SIGQUIT
from urllib.parse import quote

import pytest
from tests import postgres
from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing
from tests.postgres import Postgres, send
from tests.small_disk import SmallDisk

from towline.errors import StaleTerm, StoreError
from towline.store.postgresql import PostgresStore
from towline.store.postgresql.connections import OTHERS

PASSWORD = "geheim-7/@%"


@pytest.fixture(scope="module")
def server(own_server: Postgres) -> Postgres:
    """That of ``store``: one that these tests may stop."""
    return own_server


@pytest.mark.parametrize("crash", [False, True])
async def test_a_restart_is_over_when_it_is_over(
    own_server: Postgres, store: PostgresStore, crash: bool
) -> None:
    leader = await Writing.lead(store, "default")
    await leader.submit("j1", 1)
    await asyncio.gather(*(store.jobs("default", None, 1) for _ in range(20)))
    await asyncio.to_thread(own_server.stop, *([SIGQUIT] if crash else []))
    for ask in (leader.commit(nodes=[rows.node("n1")]), store.jobs("default", None, 1)):
        with pytest.raises(
            StoreError, match=r"it cannot be reached: look whether it runs|connection was lost"
        ):
            await ask
    own_server.start()
    assert [row.id for row in await store.jobs("default", None, 9)] == ["j1"]
    await leader.commit(nodes=[rows.node("n2")])
    assert [row.id for row in await store.nodes("default")] == ["n2"]
    assert await asyncio.to_thread(own_server.backends) <= 10


async def test_a_commit_whose_answer_was_lost_is_doubtful(own_server: Postgres, store: PostgresStore) -> None:
    leader = await Writing.lead(store, "default")
    holder = PostgresStore(store.address.url)
    async with holder._connections.others.take() as other, other.transaction():
        await other.execute("LOCK TABLE node")
        committing = asyncio.ensure_future(leader.commit(nodes=[rows.node("n1")]))
        await asyncio.to_thread(own_server.until_waiting, 1)
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        await asyncio.to_thread(own_server.run, ended)
        with pytest.raises(StoreError, match=r"whether the change was made is not known"):
            await committing
    await holder.close()
    successor = await Writing.lead(store, "default")
    await successor.commit(nodes=[rows.node("n2")])
    with pytest.raises(StaleTerm):
        await leader.commit(nodes=[rows.node("n3")])
    assert [row.id for row in await store.nodes("default")] == ["n2"]


async def test_a_database_that_stands_still_is_given_up(
    own_server: Postgres, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one behind a network that swallows everything: nobody waits for ever, and nothing is left behind."""
    monkeypatch.setattr("towline.store.postgresql.store.COMMIT_S", 0.3)
    leader = await Writing.lead(store, "default")
    await leader.submit("j1", 1)
    send(own_server.children(), signal.SIGSTOP)
    try:
        with pytest.raises(StoreError, match=r"it does not answer.*whether the change was made is not known"):
            await leader.commit(nodes=[rows.node("n1")])
    finally:
        send(own_server.children(), signal.SIGCONT)
    successor = await Writing.lead(store, "default")
    await successor.commit(nodes=[rows.node("n2")])
    with pytest.raises(StaleTerm):
        await leader.commit(nodes=[rows.node("n3")])
    assert [row.id for row in await store.nodes("default")] in (["n1", "n2"], ["n2"])
    assert await asyncio.to_thread(own_server.backends) <= 10


async def test_after_one_that_did_not_answer_no_other_idle_connection_is_tried(
    own_server: Postgres, store: PostgresStore
) -> None:
    """Each that is tried costs its caller a whole timeout."""
    lane = store._connections.others

    async def hold(_: int) -> None:
        async with lane.take() as connection:
            await connection.execute("SELECT pg_sleep(0.1)")

    await asyncio.gather(*map(hold, range(OTHERS)))
    assert (lane.open, store._connections.leaders.open) == (OTHERS, 1)
    send(own_server.children(), signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            async with lane.take() as connection:
                await connection.fetchval("SELECT 1", timeout=0.3)
        assert lane.open == 0
    finally:
        send(own_server.children(), signal.SIGCONT)
    assert await store.jobs("default", None, 9) == []


async def test_what_was_confirmed_survives_crashes(own_server: Postgres, store: PostgresStore) -> None:
    """The database crashes while leaders commit, at moments that nobody chose; all that was said to be there
    is, and of the commit under way all or nothing."""
    chosen = random.Random(5)
    first = await Writing.lead(store, "default")
    await first.submit("j1", 1)
    confirmed = wanted = 0
    reached = asyncio.Event()

    async def lead(leader: Writing) -> None:
        nonlocal confirmed
        while True:
            number = leader.event_no + 1
            await leader.commit(
                events=[rows.event(number, "j1")],
                elements=[rows.element("j1", number)],
                attempts=[rows.attempt("j1", number)],
            )
            confirmed = number
            if confirmed >= wanted:
                reached.set()

    for _ in range(4):
        leader = await Writing.lead(store, "default")
        _, leader.event_no = await store.counters("default")
        wanted = confirmed + chosen.randrange(5, 60)
        reached.clear()
        leading = asyncio.ensure_future(lead(leader))
        await reached.wait()
        await asyncio.to_thread(own_server.stop, SIGQUIT)
        with pytest.raises(StoreError):
            await leading
        own_server.start()
        _, kept = await store.counters("default")
        assert confirmed <= kept <= confirmed + 1
        assert [row.number for row in await store.events("default", 0, 10_000)] == list(range(1, kept + 1))
        page = await store.elements("j1", 0, -1, 10_000)
        assert [row.index for row in page.elements] == [row.index for row in page.attempts]
        assert [row.index for row in page.elements] == list(range(1, kept + 1))
        confirmed = kept


@pytest.fixture
def guarded(own_server: Postgres) -> Iterator[Postgres]:
    """With a user who needs a password and may have two connections."""
    own_server.run(f"CREATE ROLE app LOGIN CONNECTION LIMIT 2 PASSWORD '{PASSWORD}'")
    rules = own_server.data / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text("local all app scram-sha-256\n" + before)
    own_server.run("SELECT pg_reload_conf()")
    yield own_server
    rules.write_text(before)
    own_server.run("SELECT pg_reload_conf()")
    own_server.run("DROP OWNED BY app; DROP ROLE app")


def url_of(server: Postgres, password: str, database: str = postgres.DATABASE) -> str:
    return (
        f"postgresql://app:{quote(password, safe='')}@/{database}?host={quote(str(server.folder), safe='')}"
    )


async def refusal(store: PostgresStore) -> str:
    with pytest.raises(StoreError) as refused:
        await store.open()
    await store.close()
    return str(refused.value)


async def test_what_refuses_a_login_is_said_without_the_password(guarded: Postgres) -> None:
    said = await refusal(PostgresStore(url_of(guarded, "wrong-" + PASSWORD)))
    assert "the password is wrong: look at store_url, PGPASSWORD and ~/.pgpass" in said
    said += await refusal(PostgresStore(url_of(guarded, PASSWORD, "nowhere")))
    assert "there is no such database: make it first, with createdb" in said
    said += await refusal(PostgresStore(url_of(guarded, PASSWORD)))
    assert "the user has not the rights: make it the owner of the database" in said
    said += await refusal(PostgresStore(f"postgresql://app:{PASSWORD[:6]}@127.0.0.1:1/{postgres.DATABASE}"))
    assert "it cannot be reached: look whether it runs, and at host and port of store_url" in said
    assert "postgresql://app@127.0.0.1:1/towline" in said
    assert PASSWORD[:6] not in said and quote(PASSWORD, safe="") not in said
    assert PASSWORD not in repr(PostgresStore(url_of(guarded, PASSWORD)).address)


async def test_a_database_that_does_not_keep_what_it_confirms_is_refused(own_server: Postgres) -> None:
    own_server.run("ALTER SYSTEM SET fsync = off")
    own_server.run("SELECT pg_reload_conf()")
    try:
        while own_server.run("SHOW fsync") != "off":
            pass
        said = await refusal(PostgresStore(own_server.url))
        assert "PostgreSQL runs with fsync = off and may lose what it has confirmed: set it to on" in said
    finally:
        own_server.run("ALTER SYSTEM RESET fsync")
        own_server.run("SELECT pg_reload_conf()")


async def test_a_database_that_cannot_keep_every_text_is_refused(own_server: Postgres) -> None:
    own_server.run("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    url = own_server.url.replace(f"/{postgres.DATABASE}?", "/latin?")
    said = await refusal(PostgresStore(url))
    assert "the database keeps text as LATIN1: make one with createdb --encoding UTF8" in said


async def test_a_leader_commits_where_no_connection_is_free_for_others(guarded: Postgres) -> None:
    """The user's two are the leader's and the leases'."""
    guarded.run("CREATE SCHEMA app AUTHORIZATION app")
    store = PostgresStore(url_of(guarded, PASSWORD))
    await store.open()
    with pytest.raises(StoreError, match=r"all its connections are taken: raise max_connections"):
        await store.jobs("default", None, 1)
    leader = await Writing.lead(store, "default")
    await leader.submit("j1", 1)
    assert [row.lease.pool for row in await store.lease_read()] == ["default"]
    assert "all its connections are taken" in await refusal(PostgresStore(url_of(guarded, PASSWORD)))
    guarded.run("ALTER ROLE app CONNECTION LIMIT 3")
    assert [row.id for row in await store.jobs("default", None, 1)] == ["j1"]
    await store.close()


async def test_a_database_that_takes_no_writes(own_server: Postgres, store: PostgresStore) -> None:
    leader = await Writing.lead(store, "default")
    own_server.run("ALTER SYSTEM SET default_transaction_read_only = on")
    own_server.run("SELECT pg_reload_conf()")
    try:
        refused: set[str] = set()
        while not any("it takes no writes: it is a standby" in one for one in refused):
            try:
                await leader.commit(nodes=[rows.node()])
            except StoreError as error:
                refused.add(str(error))
        assert "it takes no writes: it is a standby" in await refusal(PostgresStore(store.address.url))
    finally:
        own_server.run("ALTER SYSTEM RESET default_transaction_read_only")
        own_server.run("SELECT pg_reload_conf()")
    successor = await Writing.lead(store, "default")
    await successor.commit(nodes=[rows.node("n2")])


@pytest.fixture
def on_a_small_disk() -> Iterator[tuple[Postgres, SmallDisk]]:
    server = Postgres(min_wal_size="32MB", max_wal_size="32MB", shared_buffers="16MB")
    disk = SmallDisk(server.folder, "160m", mode=0o755)
    try:
        server.own_folder()
        server.make()
        server.start()
        server.run(f"CREATE DATABASE {postgres.DATABASE}", "postgres")
        yield server, disk
    finally:
        server.stop(SIGQUIT)
        disk.unmount()
        server.remove()


@pytest.mark.containers  # mounts a filesystem: needs the same rights
async def test_a_full_disk_stops_commits_until_there_is_room(
    on_a_small_disk: tuple[Postgres, SmallDisk],
) -> None:
    server, disk = on_a_small_disk
    store = PostgresStore(server.url)
    await store.open()
    leader = await Writing.lead(store, "default")
    await leader.submit("j1", 1)
    disk.fill(but_bytes=24 * 1024**2)
    written, refused, failure = await leader.fill("j1")
    said = str(failure)
    assert "its disk is full: free some space" in said or "not known" in said, said
    disk.free()
    if server.ended():  # it stops itself where it cannot write its log
        server.start()
    while True:
        try:
            leader = await Writing.lead(store, "default")
            await leader.commit(elements=refused)
            break
        except StoreError:
            await asyncio.sleep(0.1)
    assert len((await store.elements("j1", 0, -1, 10**6)).elements) == written + len(refused)
    await store.close()


async def test_a_standby_takes_over_and_has_every_commit(tmp_path: Path) -> None:
    primary = postgres.started(synchronous_standby_names="*", synchronous_commit="local")
    standby = Postgres()
    try:
        standby.follow(primary)
        hosts = f"{primary.folder},{standby.folder}"
        store = PostgresStore(f"postgresql://towline@/towline?host={quote(hosts, safe='')}")
        await store.open()
        leader = await Writing.lead(store, "default")
        for number in range(1, 30):
            await leader.commit(events=[rows.event(number)])
        await asyncio.to_thread(primary.stop, SIGQUIT)
        with pytest.raises(StoreError):
            await leader.commit(events=[rows.event(30)])
        await asyncio.to_thread(standby.run, "SELECT pg_promote()")
        successor = await Writing.lead(store, "default")
        assert successor.term == leader.term + 1
        assert await store.counters("default") == (2, 29)
        with pytest.raises(StaleTerm):
            await leader.commit(events=[rows.event(30)])
        await store.close()
    finally:
        standby.remove()
        primary.remove()
