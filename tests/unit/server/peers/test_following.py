# ruff: noqa: ASYNC110 - nobody tells what is waited for here
"""What a server that does not lead hears of the leader's commits, and of what others have changed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing

from towline.coordination.storelease import Leases
from towline.core.leadership import ServerRow
from towline.errors import OperatorError, StoreError
from towline.server.events import Feed
from towline.server.peers import held as held_module
from towline.server.peers.following import Following
from towline.server.peers.held import Held
from towline.store.memory import MemoryStore


class World:
    """A leader that commits to a store, and a server beside it that follows."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.feed = Feed("default", self.store, 100)
        self.now_ms = 0
        me = ServerRow(id="me", name="me", address="a:1", build="b", started_at=1)
        self.leases = Leases(self.store, me, lambda: self.now_ms)
        self.reloaded = 0
        self.following = Following(self.feed, self.store, self.leases)
        self.held = Held(self.store, [self._reload])

    async def _reload(self) -> None:
        self.reloaded += 1

    async def lead(self) -> None:
        self.leader = await Writing.lead(self.store, "default")

    async def commit(self, count: int) -> None:
        first = self.leader.event_no + 1
        events = [rows.event(number, kind="x", job="j1") for number in range(first, first + count)]
        await self.leader.commit(events=events)

    async def look(self) -> None:
        await self.leases.turn()
        await self.following.tell_events()

    def heard(self, reader: Any) -> list[int]:
        return [row.number for row in reader.take()]


@pytest.fixture
async def world() -> World:
    made = World()
    await made.lead()
    return made


async def test_readers_hear_of_what_is_committed_from_now_on(world: World) -> None:
    await world.commit(3)
    await world.look()
    reader = world.feed.subscribe("j1")
    await world.look()
    assert world.heard(reader) == []
    await world.commit(2)
    await world.look()
    assert world.heard(reader) == [4, 5]
    assert [row.number for row in world.feed.recent("j1", 4) or []] == [5]


async def test_what_is_committed_between_a_look_and_a_reader_is_not_missed(world: World) -> None:
    await world.look()
    await world.commit(2)
    reader = world.feed.subscribe("j1")
    await world.look()
    assert world.heard(reader) == [1, 2]


async def test_memory_has_no_gap_where_nobody_has_read_for_a_while(world: World) -> None:
    reader = world.feed.subscribe("j1")
    await world.look()
    await world.commit(1)
    await world.look()
    world.feed.unsubscribe(reader)
    await world.commit(5)
    await world.look()
    reader = world.feed.subscribe("j1")
    await world.commit(1)
    await world.look()
    assert world.heard(reader) == [7]
    assert world.feed.recent("j1", 1) is None  # 2 to 6 are in the store alone


async def test_a_reader_who_has_missed_something_at_a_change_of_leaders_comes_again(world: World) -> None:
    """The last one has committed what this server had not heard of when it began to lead."""
    await world.look()
    reader = world.feed.subscribe("j1")
    await world.commit(1)
    world.feed.restart(1)
    assert reader.overflow


async def test_a_leader_tells_its_readers_itself(world: World) -> None:
    await world.look()
    reader = world.feed.subscribe("j1")
    world.leases.lease("default").got(world.now_ms, 5_000)
    await world.commit(2)
    await world.look()
    assert world.heard(reader) == []
    assert not reader.overflow
    world.now_ms += 5_000  # it is one no more: readers come again with their cursors
    await world.look()
    assert reader.overflow


async def test_what_is_held_in_memory_is_read_again_when_it_has_changed(world: World) -> None:
    await world.held.load()
    await world.held.load()
    assert world.reloaded == 1
    await world.store.seal_put("default", "secret", "s", b"1", None, 5)
    await world.held.load()
    assert world.reloaded == 2


async def test_where_the_reload_fails_it_is_tried_again(world: World) -> None:
    async def fails() -> None:
        raise StoreError("no")

    reloads = [fails]
    held = Held(world.store, reloads)
    for read in (held.load, held.before_leading):
        with pytest.raises(StoreError):
            await read()
    reloads.clear()
    await held.load()


async def test_a_value_that_does_not_open_keeps_nobody_from_leading(world: World) -> None:
    async def fails() -> None:
        raise OperatorError("another key")

    await Held(world.store, [fails]).before_leading()


async def test_whoever_follows_a_pool_keeps_up_with_what_is_held(world: World) -> None:
    following = Following(world.feed, world.store, world.leases, world.held)
    going = asyncio.create_task(following.run())
    await asyncio.sleep(0)
    await world.leases.turn()
    while world.reloaded == 0:
        await asyncio.sleep(0)
    going.cancel()


async def test_events_that_cannot_be_read_keep_no_token_that_was_taken_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> Any:
        raise StoreError("a row is damaged")

    following = Following(world.feed, world.store, world.leases, world.held)
    reader = world.feed.subscribe("j1")
    await world.leases.turn()
    await following.tell_events()
    await world.commit(1)
    monkeypatch.setattr(world.store, "events", fails)
    await world.leases.turn()
    with pytest.raises(StoreError):
        await following.tell_events()
    going = asyncio.create_task(following.run())
    while world.reloaded == 0:
        await asyncio.sleep(0)
    going.cancel()
    assert world.heard(reader) == []


async def test_a_read_that_hangs_keeps_nobody_from_leading(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(held_module, "PATIENCE_S", 0.01)
    held = Held(world.store, [hangs])
    await asyncio.wait_for(held.before_leading(), 5)
    held = Held(world.store, [])
    await asyncio.wait_for(held.load(), 5)
