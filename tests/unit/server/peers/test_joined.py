# ruff: noqa: ASYNC110 - nobody tells what is waited for here
"""Servers that do not go together on one store: the younger one ends, and says why."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from towline.coordination.zookeeper import ZooKeeperLeases
from towline.core.leadership import NOBODY
from towline.errors import WrongSetting
from towline.server.peers.joined import Joined
from towline.server.process.local import LocalServer
from towline.server.settings import Settings
from towline.store.memory import MemoryStore

PATIENCE_S = 60


class World:
    """Servers of one store, each younger than those that were made before it; leases are short."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.store = MemoryStore()
        self.running: list[asyncio.Task[None]] = []
        self.servers: list[Joined] = []

    async def server(self, address: str, **fields: Any) -> Joined:
        settings = Settings(
            home=self._home, listen=address, shared_files=True, leadership_lease="500ms", **fields
        )
        while self.servers and time.time_ns() // 1_000_000 <= self.servers[-1].row.started_at:
            await asyncio.sleep(0)
        made = Joined(settings, self.store, None)  # type: ignore[arg-type] - nothing is passed on here
        self.servers.append(made)
        await self.store.pool_create("default")
        return made

    def run(self, joined: Joined) -> asyncio.Task[None]:
        self.running.append(asyncio.create_task(joined.run()))
        return self.running[-1]

    async def leader(self) -> str:
        return (await self.store.lease_read())[0].lease.holder


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    yield made
    for task in made.running:
        task.cancel()
    await asyncio.gather(*made.running, return_exceptions=True)


async def test_of_two_at_one_address_the_younger_ends_and_names_the_setting(world: World) -> None:
    elder, younger = await world.server("10.0.0.1:7443"), await world.server("10.0.0.1:7443")
    going = world.run(elder)
    with pytest.raises(
        WrongSetting, match=r"reached at 10\.0\.0\.1:7443, and so is .* set address to another"
    ):
        await asyncio.wait_for(world.run(younger), PATIENCE_S)
    assert not going.done()
    await younger.close()
    await elder.leases.turn()
    assert [row.id for row in await world.store.server_list()] == [elder.row.id]


async def test_an_earlier_life_whose_last_beat_came_late_ends_nobody(world: World) -> None:
    before, after = await world.server("10.0.0.1:7443"), await world.server("10.0.0.1:7443")
    await before.leases.turn()
    await after.leases.turn()
    await world.store.server_put(structs.replace(before.row, beats=2))
    going = world.run(after)
    while [row.id for row in await world.store.server_list()] != [after.row.id]:
        await asyncio.sleep(0.01)
    assert not going.done()


async def test_a_server_that_looks_elsewhere_for_leases_takes_none_before_it_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its ensemble all leases are free: whoever took one would depose the leader."""
    elder = await world.server("10.0.0.1:7443", store_url="postgresql://u@h/d")
    younger = await world.server(
        "10.0.0.2:7443", store_url="postgresql://u@h/d", coordination_url="zk://h/towline"
    )
    elsewhere = MemoryStore()
    await elsewhere.pool_create("default")

    class Ensemble(ZooKeeperLeases):
        async def lease_read(self) -> Any:
            return await elsewhere.lease_read()

        async def lease_take(self, *claim: Any) -> bool:
            return await elsewhere.lease_take(*claim)

    assert isinstance(younger.leases._store, ZooKeeperLeases)  # pyright: ignore[reportPrivateUsage]
    younger.leases._store.__class__ = Ensemble  # pyright: ignore[reportPrivateUsage]
    await elder.leases.turn()
    world.run(elder)
    wanted = asyncio.create_task(younger.lease("default").acquire())
    try:
        with pytest.raises(WrongSetting, match=r"set coordination_url to the same on both"):
            await asyncio.wait_for(world.run(younger), PATIENCE_S)
        assert not wanted.done()
        assert (await elsewhere.lease_read())[0].lease.holder == NOBODY
    finally:
        wanted.cancel()


async def test_servers_that_differ_in_their_first_pool_do_not_go_together(world: World) -> None:
    elder = await world.server("10.0.0.1:7443", store_url="postgresql://u@h/d")
    younger = await world.server("10.0.0.2:7443", store_url="postgresql://u@h/d", pool="main")
    await elder.leases.turn()
    world.run(elder)
    with pytest.raises(WrongSetting, match=r"pool is main, .* is default: set pool to the same on both"):
        await asyncio.wait_for(world.run(younger), PATIENCE_S)


async def test_when_it_has_ended_nothing_of_it_works_on(world: World) -> None:
    joined = await world.server("10.0.0.1:7443")
    turn = asyncio.Event()
    ended: list[str] = []

    async def slow() -> None:
        turn.set()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(3):
                await asyncio.sleep(0)
            ended.append("turn")

    joined.leases.turn = slow  # type: ignore[method-assign]
    going = world.run(joined)
    await turn.wait()
    going.cancel()
    await asyncio.wait([going])
    assert ended == ["turn"]


async def test_a_server_lets_go_of_its_leases_when_nothing_takes_them_any_more(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    class Part:
        """Of a server: all that is asked of it here, it has done at once."""

        def __getattr__(self, name: str) -> Any:
            async def done(*_: object) -> None: ...

            return done

        def close(self) -> None:
            return

    class Door(Part):
        async def close(self, grace_s: float) -> None:
            return

    class Ending:
        alone = False

        async def run(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                steps.append("ended")

        async def close(self) -> None:
            steps.append("closed")

    ending: Any = Ending()
    part, door = Part(), Door()
    server = LocalServer(Settings(home=tmp_path), world.store, part, ending)  # type: ignore[arg-type]
    monkeypatch.setattr(LocalServer, "reachable", False)
    joining = asyncio.create_task(ending.run())
    await asyncio.sleep(0)
    await server._end(door, joining, door)  # type: ignore[arg-type]  # pyright: ignore[reportPrivateUsage]
    assert steps == ["ended", "closed"]
