# ruff: noqa: ASYNC110 - nobody tells what is waited for here
"""What a server that shares its store reads before it leads a pool."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from towline.server.peers.joined import Joined
from towline.server.seats.making import Making
from towline.server.settings import Settings
from towline.store.memory import MemoryStore


@pytest.mark.parametrize("pool", ["default", "gpu"])
async def test_what_others_may_have_changed_is_read_again_behind_the_term(tmp_path: Path, pool: str) -> None:
    store = MemoryStore()
    await store.pool_create(pool)
    read: list[tuple[str, int]] = []

    def holding(name: str) -> Any:
        async def load() -> None:
            read.append((name, (await store.counters(pool))[0]))

        return SimpleNamespace(load=load, login_for=None, values_for=None)

    settings = Settings(home=tmp_path, listen="10.0.0.1:7443", store_url="postgresql://u@h/d")
    joined = Joined(settings, store, None)  # type: ignore[arg-type] - nothing is passed on here
    made: Any = {
        "settings": settings,
        "store": store,
        "facts": None,
        "logins": holding("logins"),
        "secrets": holding("secrets"),
        "intake": lambda its, leader: None,
        "access": SimpleNamespace(tokens=holding("tokens"), enrolments=holding("enrolments")),
        "receiving": None,
        "keeping": None,
        "joined": joined,
        "metrics": None,
    }
    seat = Making(**made).seat(pool)
    leading = asyncio.create_task(seat.leader.run())
    while not joined.lease(pool).wanted:
        await asyncio.sleep(0)
    await joined.leases.turn()
    await seat.leader.ready.wait()
    assert sorted(read) == [("enrolments", 1), ("logins", 1), ("secrets", 1), ("tokens", 1)]
    seat.leader.end()
    await leading
