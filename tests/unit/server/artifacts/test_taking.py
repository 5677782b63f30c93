"""Places for blobs that arrive: bounded over all, and no node takes all of them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from towline.errors import Unavailable
from towline.server.artifacts import taking
from towline.server.artifacts.taking import AT_ONCE, OF_A_NODE, SLOW_AT_ONCE, Taking


async def _waits(places: Taking, node: str) -> bool:
    """Whether a node has to wait for a place now: it is not given up for all that is ready to run."""

    async def hold() -> None:
        async with places.place(node):
            pass

    task = asyncio.create_task(hold())
    for _ in range(10):
        await asyncio.sleep(0)
    waits = not task.done()
    task.cancel()
    return waits


async def test_a_node_leaves_places_to_others() -> None:
    places = Taking()
    async with AsyncExitStack() as held:
        for _ in range(OF_A_NODE):
            await held.enter_async_context(places.place("slow"))
        assert await _waits(places, "slow")
        assert not await _waits(places, "other")
    assert not await _waits(places, "slow")


async def test_all_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "AT_ONCE", 4)
    assert AT_ONCE > OF_A_NODE
    places = Taking()
    async with AsyncExitStack() as held:
        for number in range(4):
            await held.enter_async_context(places.place(f"n{number}"))
        assert await _waits(places, "n9")
    assert not await _waits(places, "n9")


async def test_slow_ones_leave_half_of_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that came first come to their end; one that is quick is never sent away."""
    monkeypatch.setattr(taking, "SLOW_AFTER_S", 0.01)
    places = Taking()
    end = asyncio.Event()
    away: list[int] = []

    async def slow(number: int) -> int:
        try:
            async with places.place(f"n{number}"), places.arriving():
                await end.wait()
        except Unavailable as error:
            assert "bring it again" in str(error)
            away.append(number)
        return number

    tasks = [asyncio.create_task(slow(number)) for number in range(AT_ONCE)]
    done, staying = await asyncio.wait(tasks[SLOW_AT_ONCE:], return_when=asyncio.ALL_COMPLETED)
    assert not staying
    assert sorted(away) == sorted(task.result() for task in done) == list(range(SLOW_AT_ONCE, AT_ONCE))
    assert not any(task.done() for task in tasks[:SLOW_AT_ONCE])
    for number in range(AT_ONCE):
        assert not await _waits(places, f"q{number}")
    end.set()
    await asyncio.gather(*tasks)
    assert len(away) == AT_ONCE - SLOW_AT_ONCE
    late = asyncio.create_task(slow(AT_ONCE))  # room for slow ones again
    assert await late == AT_ONCE
    assert len(away) == AT_ONCE - SLOW_AT_ONCE
