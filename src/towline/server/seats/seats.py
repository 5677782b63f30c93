"""The seats of one server, one a pool: they come as pools do, and end together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

import structlog

from towline.errors import NotFound, OperatorError
from towline.server.seats.seat import Seat
from towline.store.coordination.rows import CoordinationStore

LOOK_S = 0.5
"""How often it is looked whether a seat has come."""
AGAIN_S = 5.0
"""After so long, work for a pool that has failed is begun anew."""
SHOWN = 20
"""Of pools where one is named that is not there."""
END_S = 10.0
"""So long a leader that is to end may take to commit what has arrived."""


class Seats:
    """``make`` builds the seat of a pool. ``home`` is the pool that stands where none is named; its leader
    also takes what belongs to no pool. Seats that are added run from ``start`` to ``end``."""

    def __init__(self, home: str, make: Callable[[str], Seat]) -> None:
        self._make = make
        self._seats: dict[str, Seat] = {}
        self._leading: dict[str, asyncio.Task[None]] = {}
        self._stop: Callable[[], None] | None = None
        """What ends the server; set while it runs."""
        self._log = structlog.get_logger("server")
        self._failed: set[str] = set()
        self.home = self.add(home)

    # --- which there are ----------------------------------------------------------------------------
    def __iter__(self) -> Iterator[Seat]:
        """In order of the pools' names."""
        return iter([self._seats[pool] for pool in sorted(self._seats)])

    def __len__(self) -> int:
        return len(self._seats)

    def names(self) -> list[str]:
        return sorted(self._seats)

    @property
    def home_pool(self) -> str:
        return self.home.pool

    def get(self, pool: str) -> Seat | None:
        return self._seats.get(pool)

    def known(self, pool: str) -> str:
        """The name of a pool that is there. Raises NotFound."""
        if pool not in self._seats:
            names = ", ".join(self.names()[:SHOWN])
            raise NotFound(f"There is no pool {pool[:100]!r}: there are {names}.")
        return pool

    def add(self, pool: str) -> Seat:
        """The seat of a pool, made where it is missing."""
        seat = self._seats.get(pool)
        if seat is None:
            seat = self._seats[pool] = self._make(pool)
            if self._stop is not None:
                self._run(seat)
        return seat

    async def learn(self, store: CoordinationStore) -> None:
        """Hear of all pools that are in the store. Raises StoreError."""
        self.hear([row.pool for row in await store.lease_read()])

    def hear(self, pools: Iterable[str]) -> None:
        """Of pools that are there. One that no seat can be made for now, such as where the disk is full, ends
        nothing: it is led elsewhere, and tried again when it is heard of next."""
        for pool in pools:
            try:
                self.add(pool)
                self._failed.discard(pool)
            except OSError as error:
                if pool not in self._failed:
                    self._log.error("a pool cannot be led here", pool=pool, reason=str(error))
                self._failed.add(pool)

    # --- all of them --------------------------------------------------------------------------------
    @property
    def open_links(self) -> int:
        return sum(seat.gateway.open_links for seat in self)

    @property
    def unfinished_jobs(self) -> int | None:
        """Of the pools that are led here; None while one of them is not."""
        if not all(seat.leader.ready.is_set() for seat in self):
            return None
        return sum(seat.leader.opinion(lambda pool: pool.unfinished_jobs) for seat in self)

    def descriptions_changed(self) -> None:
        """Logins or secrets have."""
        for seat in self:
            seat.gateway.descriptions_changed()

    # --- life ---------------------------------------------------------------------------------------
    def start(self, stop: Callable[[], None]) -> asyncio.Task[None]:
        """Lead from now on what the leases allow; ``stop`` is called where no pool can be led any more, or a
        leader has crashed. Returns the home's leader as a task."""
        self._stop = stop
        for seat in self:
            self._run(seat)
        return self._leading[self.home.pool]

    def _run(self, seat: Seat) -> None:
        leading = self._leading[seat.pool] = asyncio.create_task(seat.leader.run())
        leading.add_done_callback(lambda task: self._ended(seat, task))

    def _ended(self, seat: Seat, task: asyncio.Task[None]) -> None:
        """A pool that has stopped for an operator leaves the others alone."""
        if seat.leader.stopped is not None:
            self._log.error("a pool has stopped", pool=seat.pool, reason=seat.leader.stopped)
        crashed = not task.cancelled() and task.exception() is not None
        if self._stop is not None and (crashed or all(one.done() for one in self._leading.values())):
            self._stop()

    async def work(self) -> None:
        """What goes on beside the leaders, of seats that come later too; until cancelled. What fails is begun
        anew after a while: it hurts no other pool, and a server must not fall behind unnoticed."""
        tasks: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                for seat in self:
                    if seat.pool not in tasks:
                        tasks[seat.pool] = asyncio.create_task(self._work_of(seat))
                await asyncio.sleep(LOOK_S)
        finally:
            for task in tasks.values():
                task.cancel()

    async def _work_of(self, seat: Seat) -> None:
        while True:
            tasks = [asyncio.ensure_future(one) for one in seat.work()]
            try:
                await asyncio.gather(*tasks)
            except Exception:
                self._log.exception("work for a pool has ended", pool=seat.pool)
            finally:
                for task in tasks:
                    task.cancel()
            await asyncio.sleep(AGAIN_S)

    async def end(self) -> None:
        """What has arrived is committed and answered. A pool that comes from now on is led elsewhere."""
        self._stop = None
        for seat in self:
            seat.leader.end()
        if self._leading:
            await asyncio.wait(self._leading.values(), timeout=END_S)

    async def settle(self) -> None:
        """Nobody is served any more: what has not ended by now is ended."""
        for task in self._leading.values():
            task.cancel()
        if self._leading:
            await asyncio.wait(self._leading.values())

    def close(self) -> None:
        """After ``settle``. Raises what made a leader crash, OperatorError for a pool that has stopped."""
        for seat in self:
            seat.in_hand.close()
        for task in self._leading.values():
            if not task.cancelled():
                task.result()
        for seat in self:
            if seat.leader.stopped is not None:
                raise OperatorError(seat.leader.stopped)
