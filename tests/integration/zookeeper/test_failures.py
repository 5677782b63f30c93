"""Servers of the ensemble that die, sessions that expire, holders that sleep."""

from __future__ import annotations

import asyncio
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from kazoo.client import KazooClient
from tests import zookeeper
from tests.integration.zookeeper.conftest import Leased

from towline.coordination.storelease import Leases, StoreLease
from towline.coordination.zookeeper import Ensemble, ZooKeeperLeases
from towline.core.leadership import ServerRow
from towline.errors import OperatorError, StoreError
from towline.store.memory import MemoryStore

LEASE_MS = 2_000
PATIENCE_S = 60.0


class Servers:
    """Several servers' leases on one store. Their clock is the real one."""

    def __init__(self, store: Leased, stack: AsyncExitStack) -> None:
        self._store = store
        self._stack = stack

    async def start(self, name: str) -> tuple[Leases, StoreLease]:
        row = ServerRow(id=name, name=name, address="h:1", build="b", started_at=1, lease_ms=LEASE_MS)
        leases = Leases(self._store, row)
        lease = leases.lease("p")
        for work in (leases.run(), self._lead(lease)):
            task = asyncio.create_task(work)
            self._stack.callback(task.cancel)
        return leases, lease

    async def _lead(self, lease: StoreLease) -> None:
        while True:
            await lease.acquire()
            await lease.leaving()
            await lease.give_up()


@pytest.fixture
async def servers(store: Leased) -> AsyncIterator[Servers]:
    await store.pool_create("p")
    async with AsyncExitStack() as stack:
        yield Servers(store, stack)


async def until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - a state of others
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"waited in vain for {what}")


async def test_a_lease_outlives_the_ensembles_leader(
    servers: Servers, store: Leased, ensemble: zookeeper.Ensemble
) -> None:
    (_, a), (_, b) = await servers.start("a"), await servers.start("b")
    await until(lambda: a.held or b.held, "a holder")
    dead = ensemble.leader()
    dead.kill()
    await asyncio.to_thread(ensemble.wait, 2)
    before = (await store.leases.lease_read())[0].lease.renewals
    await until(lambda: a.held or b.held, "a holder")
    async with asyncio.timeout(PATIENCE_S):
        while (await store.leases.lease_read())[0].lease.renewals <= before:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert [a.held, b.held].count(True) == 1
    dead.start()
    await asyncio.to_thread(ensemble.wait)


async def test_without_a_quorum_nobody_leads_and_with_one_somebody_does(
    servers: Servers, ensemble: zookeeper.Ensemble
) -> None:
    (_, a), (_, b) = await servers.start("a"), await servers.start("b")
    await until(lambda: a.held or b.held, "a holder")
    dead = ensemble.servers[:2]
    for server in dead:
        server.kill()
    await until(lambda: not a.held and not b.held, "the lease to run out by the clock")
    await asyncio.sleep(2 * LEASE_MS / 1000)
    assert not a.held and not b.held
    for server in dead:
        server.start()
    await until(lambda: a.held or b.held, "a holder again")
    await asyncio.to_thread(ensemble.wait)


async def test_a_session_that_expires_takes_no_lease(servers: Servers, store: Leased, url: str) -> None:
    leases, lease = await servers.start("a")
    await until(lambda: lease.held, "a holder")
    client = store.leases._client
    assert client is not None
    session = client.client_id
    lost: list[object] = []
    client.add_listener(lost.append)
    other = KazooClient(hosts=Ensemble(url).hosts, client_id=session)
    await asyncio.to_thread(other.start)
    await asyncio.to_thread(other.stop)  # ends the session, which is the first one's too
    await asyncio.to_thread(other.close)
    await until(lambda: "LOST" in lost, "the session to end")
    await until(lambda: client.client_id not in (None, session), "another session")
    at_ms = lease.until_ms
    await until(lambda: lease.until_ms > at_ms, "the lease to be renewed in it")
    assert lease.held and leases.leader_of("p") is not None


HOLDER = """
import asyncio, structlog, sys
from towline.coordination.storelease import Leases
from towline.coordination.zookeeper import Ensemble, ZooKeeperLeases
from towline.core.leadership import ServerRow
from towline.store.memory import MemoryStore

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def main():
    store = MemoryStore()
    await store.pool_create("p")
    leases = ZooKeeperLeases(Ensemble(sys.argv[1]), store)
    await leases.open()
    row = ServerRow(id="sleeper", name="s", address="h:1", build="b", started_at=1, lease_ms=int(sys.argv[2]))
    mine = Leases(leases, row)
    work = asyncio.create_task(mine.run())
    lease = mine.lease("p")
    await lease.acquire()
    while True:
        print("held" if lease.held else "lost", flush=True)
        await asyncio.sleep(0.01)

asyncio.run(main())
"""


async def test_a_holder_that_slept_knows_at_once_that_it_holds_nothing(servers: Servers, url: str) -> None:
    sleeper = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", HOLDER, url, str(LEASE_MS)], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert sleeper.stdout is not None
    try:
        assert await asyncio.to_thread(sleeper.stdout.readline) == "held\n"
        _, lease = await servers.start("a")
        sleeper.send_signal(signal.SIGSTOP)
        await until(lambda: lease.held, "the other one to take over")
        sleeper.send_signal(signal.SIGCONT)
        said = [await asyncio.to_thread(sleeper.stdout.readline) for _ in range(2)]
        while said[-1] == "held\n" and len(said) < 5000:  # what it had said before it slept
            said.append(await asyncio.to_thread(sleeper.stdout.readline))
        assert said[-1] == "lost\n"
        for _ in range(100):
            assert await asyncio.to_thread(sleeper.stdout.readline) == "lost\n"
        assert lease.held
    finally:
        sleeper.kill()
        sleeper.communicate()


async def test_who_has_no_password_writes_nothing(ensemble: zookeeper.Ensemble) -> None:
    path = f"towline/{secrets.token_hex(4)}"
    store = MemoryStore()
    await store.pool_create("p")
    own = ZooKeeperLeases(Ensemble(ensemble.url(path, "tow:se%40cret@")), store)
    await own.open()
    row = (await own.lease_read())[0].lease
    assert await own.lease_take(row, "a", 1)
    stranger = ZooKeeperLeases(Ensemble(ensemble.url(path, "tow:wrong@")), store)
    await stranger.open()
    with pytest.raises(StoreError, match="refuses this user and password") as failure:
        await stranger.lease_read()
    assert "wrong" not in str(failure.value).replace("wrong user", "")
    await own.close()
    await stranger.close()


async def test_an_ensemble_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towline.coordination.zookeeper.OPEN_S", 0.5)
    leases = ZooKeeperLeases(Ensemble("zk://tow:secret@127.0.0.1:1/towline"), MemoryStore())
    with pytest.raises(OperatorError, match=r"ZooKeeper at zk://tow@127\.0\.0\.1:1/towline cannot be used"):
        await leases.open()


async def test_a_znode_that_is_none_of_ours_is_named(store: Leased, url: str) -> None:
    await store.pool_create("p")
    client = store.leases._client
    assert client is not None
    path = f"{Ensemble(url).path}/leases/p"
    await asyncio.to_thread(client.create, path, b"something else")
    with pytest.raises(StoreError, match="is none of Towline's"):
        await store.leases.lease_read()
