"""The seats of a server: they come as pools do, lead on their own, and end together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec import structs

from towline.core.commands import DeleteQueue, SetQueue
from towline.errors import NotFound, OperatorError
from towline.server.events import Feed
from towline.server.gateway import Gateway
from towline.server.leader import InHand, Leader
from towline.server.leader.clock import Clock
from towline.server.seats import seats as layer
from towline.server.seats.seat import Seat
from towline.server.seats.seats import Seats
from towline.server.settings import Settings
from towline.store.memory import MemoryStore


class Kept:
    """A retention that finds nothing."""

    async def expire(self) -> Any:
        return type("Garbage", (), {"jobs": 0})


class World:
    def __init__(self, folder: Path) -> None:
        self.store = MemoryStore()
        self.folder = folder
        self.settings = Settings(home=folder, backoff_first_ms=1, backoff_max_ms=2)
        self.delivered: list[str] = []
        self.stops = 0
        self.seats = Seats("default", self.make)

    def make(self, pool: str) -> Seat:
        settings = structs.replace(self.settings, pool=pool)
        feed = Feed(pool, self.store, 100)
        gateway = Gateway(feed, settings)
        in_hand = InHand(self.folder / f"in-hand-{pool}")
        leader = Leader(self.store, Clock(), settings, in_hand, gateway)
        gateway.attach(leader)

        async def deliver() -> None:
            self.delivered.append(pool)
            await asyncio.Event().wait()

        return Seat(
            settings=settings,
            leader=leader,
            gateway=gateway,
            feed=feed,
            intake=cast("Any", None),
            retention=cast("Any", Kept()),
            in_hand=in_hand,
            deliver=deliver,
        )

    def stop(self) -> None:
        self.stops += 1


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - whatever it is
            await asyncio.sleep(0.001)


async def test_pools_are_led_side_by_side_and_one_that_comes_later_too(world: World) -> None:
    world.seats.add("east")
    world.seats.start(world.stop)
    working = asyncio.create_task(world.seats.work())
    late = world.seats.add("west")
    assert world.seats.add("west") is late and world.seats.names() == ["default", "east", "west"]
    await until(lambda: all(seat.leader.ready.is_set() for seat in world.seats))
    for seat in world.seats:
        await seat.leader.ask(SetQueue(name=f"of-{seat.pool}"))
    await until(lambda: sorted(world.delivered) == ["default", "east", "west"])
    for seat in world.seats:
        names = [view.name for view in seat.leader.opinion(lambda pool: pool.queues_view())]
        assert names == ["default", f"of-{seat.pool}"]
    assert world.seats.unfinished_jobs == 0
    working.cancel()
    await world.seats.end()
    await world.seats.settle()
    world.seats.close()
    assert not list(world.folder.glob("in-hand*"))


async def test_a_pool_that_stops_for_an_operator_leaves_the_others_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = world.seats.add("east")
    world.seats.start(world.stop)
    await until(lambda: all(seat.leader.ready.is_set() for seat in world.seats))
    stopped = "it broke over and over again"
    monkeypatch.setattr(broken.leader._aftermath, "stopped", stopped)
    broken.leader.end()
    await until(lambda: not broken.leader.ready.is_set())
    await asyncio.sleep(0)
    assert world.stops == 0 and world.seats.unfinished_jobs is None
    with pytest.raises(NotFound):
        await world.seats.home.leader.ask(DeleteQueue(name="nothing"))
    world.seats.home.leader.end()
    await until(lambda: world.stops == 1)
    await world.seats.end()
    await world.seats.settle()
    with pytest.raises(OperatorError, match=stopped):
        world.seats.close()


async def test_a_leader_that_crashes_ends_the_server(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def crashes(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(world.store, "raise_term", crashes)
    world.seats.start(world.stop)
    await until(lambda: world.stops == 1)
    await world.seats.end()
    await world.seats.settle()
    with pytest.raises(ZeroDivisionError):
        world.seats.close()


def test_a_pool_that_is_not_there_is_named_with_those_that_are(world: World) -> None:
    world.seats.add("east")
    with pytest.raises(NotFound, match=r"no pool 'north': there are default, east"):
        world.seats.known("north")


async def test_work_that_fails_for_a_pool_is_begun_anew_and_hurts_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []

    async def fails(self: Seat) -> None:
        await self.leader.ready.wait()
        failed.append(self.pool)
        raise ZeroDivisionError

    monkeypatch.setattr(layer, "AGAIN_S", 0.01)
    monkeypatch.setattr(Seat, "_expire", fails)
    world.seats.start(world.stop)
    working = asyncio.create_task(world.seats.work())
    await until(lambda: failed.count("default") >= 3)
    world.seats.add("east")
    await until(lambda: failed.count("east") >= 3)
    assert set(world.delivered) == {"default", "east"}
    assert not working.done() and world.stops == 0
    working.cancel()
    await world.seats.end()
    await world.seats.settle()


async def test_pools_that_other_servers_have_made_get_a_seat(world: World) -> None:
    await world.store.pool_create("east")
    await world.seats.learn(world.store)
    assert world.seats.names() == ["default", "east"]


async def test_a_seat_that_cannot_be_made_now_is_made_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(pool: str) -> Seat:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(world.seats, "_make", full)
    world.seats.hear(["default", "east"])
    assert world.seats.names() == ["default"]
    monkeypatch.setattr(world.seats, "_make", world.make)
    world.seats.hear(["east"])
    assert world.seats.names() == ["default", "east"]


async def test_a_pool_that_comes_while_the_server_ends_is_not_led_by_it(world: World) -> None:
    world.seats.start(world.stop)
    await until(world.seats.home.leader.ready.is_set)
    ending = asyncio.create_task(world.seats.end())
    await asyncio.sleep(0)
    late = world.seats.add("late")
    await ending
    await asyncio.sleep(0.01)
    assert not late.leader.ready.is_set() and (await world.store.counters("late"))[0] == 0
    await world.seats.settle()
    world.seats.close()
