"""Whoever is not known may have been let in by another server a moment ago: it is looked, but seldom."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from litestar.types import Scope

from towline.errors import StoreError
from towline.identity import tokens
from towline.server.access.guard import PRINCIPAL, remote_door
from towline.server.access.tokens import Tokens
from towline.server.peers import held as module
from towline.server.peers.held import Newest
from towline.store.memory import MemoryStore


class Counted:
    """What is read anew, and what was there when it was."""

    def __init__(self) -> None:
        self.there = 0
        self.known = 0
        self.loads = 0
        self.fails = False

    async def load(self) -> None:
        self.loads += 1
        if self.fails:
            raise StoreError("gone")
        found = self.there
        await asyncio.sleep(0.001)
        self.known = found


def newest(counted: Any) -> Newest:
    return Newest(counted.load)


async def test_what_was_there_before_is_known_after_and_a_flood_reads_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LEAST_S", 0.02)
    counted = Counted()
    made = newest(counted)

    async def one(number: int) -> bool:
        await asyncio.sleep(number * 0.0002)
        counted.there = max(counted.there, number)
        await made.catch_up()
        return counted.known >= number

    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    assert all(await asyncio.gather(*(one(number) for number in range(500))))
    assert counted.loads <= 2 + (loop.time() - begun_s) / 0.02


async def test_a_read_that_failed_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_S", 0.0)
    counted = Counted()
    made = newest(counted)
    counted.fails, counted.there = True, 1
    results = await asyncio.gather(made.catch_up(), made.catch_up(), return_exceptions=True)
    assert [type(one) for one in results] == [StoreError] * 2
    counted.fails = False
    await made.catch_up()
    assert counted.known == 1


async def test_a_token_of_another_server_opens_the_door_at_once() -> None:
    store = MemoryStore()
    here, there = Tokens(store), Tokens(store)
    await here.load()
    enrolments: Any = Counted()
    asked: list[Scope] = []

    async def app(scope: Scope, *_: object) -> None:
        asked.append(scope)

    async def load() -> None:
        await here.load()
        await enrolments.load()

    door = remote_door(app, here, enrolments, Newest(load).catch_up)

    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    async def come(text: str | None, path: str = "/v1/jobs") -> Any:
        headers = [] if text is None else [(b"authorization", f"Bearer {text}".encode())]
        scope: Any = {"type": "http", "path": path, "headers": headers, "client": None, "state": {}}
        scope["method"] = "GET"
        await door(scope, cast("Any", None), send)
        return scope["state"].get(PRINCIPAL)

    _, text = await there.create("ada", "viewer", "default", None)
    assert (await come(text)).name == "token ada"
    loads = enrolments.loads
    assert await come(None) is None and enrolments.loads == loads
    assert await come("tow_nothing") is None and enrolments.loads == loads
    assert await come(text[:-1] + ("B" if text[-1] == "A" else "A")) is None and enrolments.loads == loads
    assert await come(tokens.mint().text) is None and enrolments.loads == loads + 1
    assert await come(tokens.mint().text, "/healthz") is None and enrolments.loads == loads + 1
    assert len(asked) == 6 and not said
    enrolments.fails = True
    assert await come(tokens.mint().text) is None
    assert len(asked) == 6 and said[0]["status"] == 503


async def test_a_read_that_fails_is_told_to_all_who_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_S", 0.0)
    counted = Counted()
    made = newest(counted)
    counted.fails = True
    results = await asyncio.gather(*(made.catch_up() for _ in range(50)), return_exceptions=True)
    assert [type(one) for one in results] == [StoreError] * 50
    assert counted.loads == 1


class Slow:
    """Takes so long to read; its clock is the only one, and only reading and waiting take time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, takes_s: float) -> None:
        self.takes_s = takes_s
        self.now_s = self.waited_s = 0.0
        self.fails = False
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(module.asyncio, "sleep", self._sleep)

    async def load(self) -> None:
        self.now_s += self.takes_s
        if self.fails:
            raise StoreError("it does not answer")

    async def _sleep(self, seconds: float) -> None:
        self.now_s, self.waited_s = self.now_s + seconds, self.waited_s + seconds


async def test_reading_anew_takes_a_small_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch, 0.5)
    made = Newest(slow.load)
    for _ in range(5):
        await made.catch_up()
        slow.now_s += 0.001
    assert slow.waited_s > 4 * 4


async def test_nobody_waits_for_minutes_because_the_store_stood_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = Slow(monkeypatch, 30.0)
    made = Newest(slow.load)
    await made.catch_up()
    slow.now_s, slow.takes_s = slow.now_s + 0.001, 0.001
    await made.catch_up()
    assert slow.waited_s <= module.LONGEST_REST_S
    slow.now_s, slow.takes_s, slow.fails = slow.now_s + 60, 30.0, True
    with pytest.raises(StoreError):
        await made.catch_up()
    slow.now_s, slow.fails, slow.waited_s = slow.now_s + 0.001, False, 0.0
    await made.catch_up()
    assert slow.waited_s == 0.0
