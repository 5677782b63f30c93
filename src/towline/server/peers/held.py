"""What a server holds in memory of what belongs to no pool, and another server may have changed: tokens,
enrolments, logins, secrets. It is read anew now and then (following.py), before a pool is led, and where
somebody or something comes that is not known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from towline.errors import OperatorError, StoreError
from towline.store.port import Store

PATIENCE_S = 2.0
"""So long a leader waits for what it holds to be read anew."""
LEAST_S = 0.02
"""At most so often is it looked because of somebody who is not known."""
REST = 9
"""So many times as long as a look took no other is taken: a cluster may have very many nodes."""
LONGEST_REST_S = 5.0
"""But no longer: where it took long because the store stood still, whoever is new would wait for minutes."""

Load = Callable[[], Awaitable[None]]


class Held:
    """``reloads`` read it anew, each a part of it."""

    def __init__(self, store: Store, reloads: Sequence[Load]) -> None:
        self._store = store
        self._reloads = reloads
        self._state: tuple[int, ...] | None = None
        self._turn = asyncio.Lock()
        self._log = structlog.get_logger("held")

    async def load(self) -> None:
        """Read it where it has changed: what was in the store at the call is held at the return. A value that
        does not open is told of and left out. Raises StoreError."""
        async with self._turn:
            state = await self._store.shared_state()
            if state == self._state:
                return
            for read in self._reloads:
                try:
                    await read()
                except StoreError:
                    raise
                except OperatorError as error:
                    self._log.warning("not all that is kept can be read", reason=str(error))
            self._state = state

    async def before_leading(self) -> None:
        """Once no other leader's commit lands any more: what is led with is no older than that. A read that
        takes long keeps nobody from leading, as beside a database that has just been given up. Raises
        StoreError."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.load()
        except TimeoutError:
            self._log.warning("what is held may be a moment old", waited_s=PATIENCE_S)


class Newest:
    """Has ``load`` read anew where somebody or something comes that is not known: another server may have let
    him in a moment ago. However many such there are, that is seldom, and never most of the time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._turn = asyncio.Lock()
        self._begun_s = self._next_s = float("-inf")
        self._failed: StoreError | None = None
        """What came of the last read."""

    async def catch_up(self) -> None:
        """What was there when it was called is known when it returns. Raises StoreError: all who wait for a
        read that fails are told so, since each one's own would take as long again."""
        came_s = time.monotonic()
        async with self._turn:
            if self._begun_s < came_s:
                await asyncio.sleep(max(0.0, self._next_s - time.monotonic()))
                await self._read()
            if self._failed is not None:
                raise StoreError(str(self._failed))

    async def _read(self) -> None:
        begun_s, failed = time.monotonic(), None
        try:
            await self._load()
        except StoreError as error:
            failed = error
        finally:
            ended_s = time.monotonic()
            rest_s = 0.0 if failed is not None else min(REST * (ended_s - begun_s), LONGEST_REST_S)
            self._next_s = max(begun_s + LEAST_S, ended_s + rest_s)
        self._begun_s, self._failed = begun_s, failed
