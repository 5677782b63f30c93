"""Servers on one PostgreSQL whose leases are in ZooKeeper."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests import postgres
from tests.integration.server_process import PATIENCE_S, ServerProcess, job
from tests.ports import free_port

from towline.server.vault import KEY_FILE


class Pair:
    """Two servers of a cluster, of which the first was there before the second."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._environ = {
            "TOWLINE_STORE_URL": postgres.shared().own(folder),
            "TOWLINE_LEADERSHIP_LEASE": "2s",
            "TOWLINE_OBJECT_STORE": f"file://{folder}/objects",
            "TOWLINE_SHARED_FILES": "true",
        }
        self.url = url
        self.servers: list[ServerProcess] = []

    def make(self, url: str) -> ServerProcess:
        home = self._folder / str(len(self.servers))
        home.mkdir(mode=0o700)
        if self.servers:
            shutil.copy(self.servers[0].home / KEY_FILE, home / KEY_FILE)
        made = ServerProcess(home, **self._environ, TOWLINE_COORDINATION_URL=url)
        self.servers.append(made)
        return made

    async def start(self) -> None:
        for _ in range(2):
            await self.make(self.url).start("--without-agent", "--listen", f"127.0.0.1:{free_port()}")

    async def views(self, of: ServerProcess) -> list[dict[str, Any]]:
        return list((await of.http.get("/v1/servers")).json()["servers"])


@pytest.fixture
async def pair(tmp_path: Path, url: str) -> AsyncIterator[Pair]:
    made = Pair(tmp_path, url)
    yield made
    for server in made.servers:
        await server.close()


async def test_a_killed_leader_is_followed_and_its_lease_was_in_zookeeper(pair: Pair, store: Any) -> None:
    await pair.start()
    first, second = pair.servers
    assert (await first.submit(job("one", t={}), "k")).is_success
    views = await pair.views(second)
    leads = {view["id"] for view in views if view["leads"]}
    assert {view["asked"] for view in views if view["leads"]} == {False}
    await store.pool_create("default")
    (row,) = await store.leases.lease_read()
    assert {row.lease.holder} == leads

    first.signal(signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            again = await second.submit(job("one", t={}), "k")
            if again.status_code != 503:
                break
            assert again.headers["retry-after"]
            await asyncio.sleep(0.05)
    assert again.status_code == 200  # the same job
    (after,) = await store.leases.lease_read()
    assert after.lease.holder not in leads and after.lease.renewals > row.lease.renewals


async def test_servers_with_leases_in_two_places_do_not_go_together(pair: Pair) -> None:
    await pair.start()
    odd = pair.make("")
    odd.process = odd._spawn(("--without-agent", "--listen", f"127.0.0.1:{free_port()}"))
    assert await odd.ended() == 2
    said = odd.log().splitlines()[-1]
    assert said.startswith("tow server: this server looks for leases in the store, and ")
    assert said.endswith("set coordination_url to the same on both")
    assert {view["live"] for view in await pair.views(pair.servers[0])} >= {True}


async def test_a_zookeeper_that_is_not_there_is_named_at_the_start(pair: Pair) -> None:
    server = pair.make("zk://127.0.0.1:1/towline")
    server.process = server._spawn(("--without-agent", "--listen", f"127.0.0.1:{free_port()}"))
    assert await server.ended() == 1
    assert server.log().splitlines()[-1] == (
        "tow server: ZooKeeper at zk://127.0.0.1:1/towline cannot be used: no server has answered for 15 s. "
        "Start it, or correct coordination_url"
    )
