"""Places for blobs that arrive: bounded over all, and no node takes all of them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from towline.server.artifacts import taking
from towline.server.artifacts.taking import AT_ONCE, OF_A_NODE, Taking


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
