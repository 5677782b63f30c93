"""The store of a history: one for all servers, which reach it over the network, and which may fail in every
way.

What a server asks for may not arrive, may fail, may be done and not be answered (a half-known commit), or be
done long after whoever asked has given up or died."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from towline.errors import StoreError, TowlineError
from towline.simulation.faults.network import Network
from towline.simulation.faults.process import Process
from towline.simulation.faults.world import MS, SECOND, World
from towline.store.memory import MemoryStore

STORE = "store"
PATIENCE_S = 4.0
"""After so long a server gives up what it has asked for."""
FAILS, HALF_KNOWN, OLD_RECORD = 0.003, 0.003, 0.5
CHANGING = ("commit", "raise_term", "reserve", "lease_take", "lease_renew")


class Database:
    """``done`` is told of each call that was carried out, with its answer."""

    def __init__(self, world: World, network: Network, store: MemoryStore) -> None:
        self.world = world
        self.network = network
        self.store = store
        self.down = False
        self.done: Callable[[str, str, tuple[Any, ...], Any], None] = lambda *_: None
        self.struck: Callable[[str, str], None] = lambda *_: None
        """Told of calls that change something when they are done, and by whom, before they are answered."""

    def carry_out(self, who: str, name: str, args: tuple[Any, ...]) -> Any:
        """The answer, or the exception that stands for it."""
        world = self.world
        if self.down:
            return StoreError("the database system is shutting down")
        if name in CHANGING and world.chance("a commit fails", FAILS):
            return StoreError("the transaction was not carried out")
        try:
            answer = now(getattr(self.store, name)(*args))
        except TowlineError as error:
            return error
        self.done(who, name, args, answer)
        if name in CHANGING:
            self.struck(who, name)
            if world.chance("a commit is half-known", HALF_KNOWN):
                return StoreError("the connection was lost")
        return answer


def now(coroutine: Any) -> Any:
    """The result of a coroutine that never waits, as those of MemoryStore are."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


class StoreClient:
    """A ``Store`` (see the port) as one life of a server sees it."""

    def __init__(self, process: Process, database: Database) -> None:
        self._process = process
        self._database = database

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._call, name)

    async def _call(self, name: str, *args: Any) -> Any:
        process, database = self._process, self._database
        answered: asyncio.Future[Any] = process.loop.create_future()
        if process.alive:
            database.network.post(process.name, STORE, name, self._arrive, name, args, answered)
        timer = process.loop.call_later(PATIENCE_S, _give_up, answered, name)
        try:
            return await answered
        finally:
            timer.cancel()

    def _arrive(self, name: str, args: tuple[Any, ...], answered: asyncio.Future[Any]) -> None:
        """A server that has died since may have its last request carried out."""
        world = self._database.world
        delay_us = MS + int(world.random.random() * 5 * MS)
        if world.chance("the store is slow", 0.002):
            delay_us = world.random.randrange(3 * SECOND)
        world.after(delay_us, self._carry_out, name, args, answered)

    def _carry_out(self, name: str, args: tuple[Any, ...], answered: asyncio.Future[Any]) -> None:
        process, database = self._process, self._database
        answer = database.carry_out(process.name, name, args)
        delay_us = 0
        if name == "record" and database.world.chance("a record grows old", OLD_RECORD):
            delay_us = database.world.random.randrange(3_800 * MS)
        said = (STORE, process.name, f"{name} done", self._answer, answered, answer)
        database.world.after(delay_us, database.network.post, *said)

    def _answer(self, answered: asyncio.Future[Any], answer: Any) -> None:
        if not self._process.alive or answered.done():
            return
        if isinstance(answer, Exception):
            answered.set_exception(answer)
        else:
            answered.set_result(answer)


def _give_up(answered: asyncio.Future[Any], name: str) -> None:
    if not answered.done():
        answered.set_exception(StoreError(f"the store has not answered {name} for {PATIENCE_S:g} s"))
