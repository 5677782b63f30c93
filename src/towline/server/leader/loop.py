"""The leader of a pool: the only one who changes it, in group commits.

Commands are applied as they arrive, also while the last batch is being committed; the pass then
runs once, and everything goes into one transaction. Answers and orders leave after the commit.
Where a commit fails, the memory is thrown away: crash and reload is the repair.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Protocol, TypeVar

import structlog

from towline import garbage
from towline.coordination.port import ForLife, Lease
from towline.core.commands import Command, Order, Tick
from towline.core.placement.choosing.rules import Rules
from towline.core.pool import Pool
from towline.core.rows import Changes, PoolSnapshot
from towline.errors import OperatorError, RetryError, StaleTerm, StoreError, Unavailable, Unstorable
from towline.model.states import JobState, Reason
from towline.server.leader.aftermath import Aftermath
from towline.server.leader.batch import Answered, Applier, Batch, Entry, PoisonedEntry, apart
from towline.server.leader.clock import Clock
from towline.server.leader.poison import InHand
from towline.server.settings import Settings
from towline.store.port import Store

T = TypeVar("T")

TRIES_IN_VAIN = 6
"""After so many tries in a row, some seconds, a server that has the lease lets others have it."""
OTHERS_S = 3.0
FLYING_S = 5.0
"""So long a leader that steps down waits for the commit that is under way; then its outcome is unknown."""


class Audience(Protocol):
    """Who hears of commits, in the leader's thread; none of these may raise or wait."""

    def leading(self, term: int, snapshot: PoolSnapshot) -> None: ...

    def committed(self, changes: Changes, orders: list[Order]) -> None: ...

    def stepped_down(self) -> None: ...


class Meter(Protocol):
    """Hears how long a leader's work takes."""

    def pass_took(self, seconds: float) -> None: ...

    def commit_took(self, seconds: float) -> None: ...


class Unmetered:
    """Where nobody measures."""

    def pass_took(self, seconds: float) -> None: ...

    def commit_took(self, seconds: float) -> None: ...


class Leader:
    """Leads one pool while ``run`` runs and the lease is ours; ``put`` and ``ask`` may be called any time.
    ``before_ready`` reads what else is led with, once the term is raised; it raises StoreError."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        in_hand: InHand,
        audience: Audience,
        rules: Callable[[], Rules] = Rules,
        meter: Meter | None = None,
        lease: Lease | None = None,
        before_ready: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._before_ready = before_ready
        self._lease = lease or ForLife()
        self._store = store
        self._clock = clock
        self._settings = settings
        self._in_hand = in_hand
        self._audience = audience
        self._rules = rules
        self._meter = meter or Unmetered()
        self._log = structlog.get_logger("leader").bind(pool=settings.pool)
        self._inbox: deque[Entry] = deque()
        self._wake = asyncio.Event()
        self._ending = False
        self._ended = asyncio.Event()
        self._leaving = False
        """The lease is lost, or another server is to have it."""
        self._pool: Pool | None = None
        self._applier: Applier | None = None
        self._commit_no = 0
        self._commits = 0
        self._committed_at_s = 0.0
        self._trouble = ""
        self._aftermath = Aftermath(in_hand)
        self.ready = asyncio.Event()
        """Set while the pool is led."""
        self.term = 0
        self.since_ms = 0
        """When this leadership began, in unix milliseconds."""

    # --- for the gateway and the API ---------------------------------------------------------------
    def put(self, command: Command, answered: Answered, key: tuple[str, str] | None = None) -> None:
        """Queue a command. ``answered`` is called once, in this thread: with the answer after its commit,
        with a RequestError, or with Unavailable where it may or may not have taken effect."""
        if self._ending or self._leaving or not self.ready.is_set():
            answered(self._unavailable())
            return
        self._inbox.append(Entry(command, answered, key))
        self._wake.set()

    async def ask(self, command: Command, key: tuple[str, str] | None = None) -> Any:
        """The answer after the commit. Raises RequestError or Unavailable."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def answered(answer: object) -> None:
            if future.done():  # the caller has gone away
                return
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        self.put(command, answered, key)
        return await future

    def opinion(self, ask: Callable[[Pool], T]) -> T:
        """What the leader thinks now: ``ask`` looks at the pool between two batches and must be quick.

        Raises what ``ask`` raises, and Unavailable.
        """
        if self._pool is None or not self.ready.is_set():
            raise self._unavailable()
        return ask(self._pool)

    def heard(self, node: str) -> int:
        """A heartbeat: returns the term to answer with, 0 where it must not be answered."""
        if self._pool is None or not self.leads:
            return 0
        return self.term if self._pool.heard(node, self._clock.now_ms()) else 0

    @property
    def leads(self) -> bool:
        """Whether nobody else can lead the pool at this moment: asked after a node was heard, and before it
        is told anything that its lease depends on."""
        return self.ready.is_set() and self._lease.held

    @property
    def stopped(self) -> str | None:
        """What an operator has to look at, where the pool has stopped for good."""
        return self._aftermath.stopped

    def _unavailable(self) -> Exception:
        if self.stopped is not None:
            return OperatorError(self.stopped)
        why = f" ({self._trouble})" if self._trouble else ""
        return Unavailable(f"The pool has no leader at the moment: repeat the request{why}.")

    # --- life ---------------------------------------------------------------------------------------
    def end(self) -> None:
        """Finish what has arrived, then return from ``run``."""
        self._ending = True
        self._ended.set()
        self._wake.set()

    async def run(self) -> None:
        """Lead until ``end`` whenever the lease is ours: load, work, and after any failure load again."""
        try:
            await self._run()
        finally:
            await self._lease.give_up()

    async def _run(self) -> None:
        backoff_ms = self._settings.backoff_first_ms
        in_vain = 0
        while not self._ending and self.stopped is None:
            before = self._commits
            if not await self._elected():
                return
            try:
                await self._take_over()
                await self._lead_while_ours()
                if self._ending:
                    return
            except PoisonedEntry as poisoned:
                self._aftermath.judge(poisoned)
            except (RetryError, StoreError) as error:
                self._trouble = str(error)
                self._log.warning("stepping down", reason=str(error))
            finally:
                self._step_down()
            in_vain += 1
            if self._commits > before:
                backoff_ms, in_vain = self._settings.backoff_first_ms, 0
            if not self._ending:
                await self._rest(max(backoff_ms / 1000, await self._let_others(in_vain)))
            backoff_ms = min(2 * backoff_ms, self._settings.backoff_max_ms)

    async def _rest(self, seconds: float) -> None:
        """Not beyond the end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    async def _let_others(self, in_vain: int) -> float:
        """A server that has the lease and cannot lead lets others try: for how many seconds."""
        if in_vain % TRIES_IN_VAIN or in_vain == 0:
            return 0.0
        await self._lease.give_up()
        return 0.0 if self._lease.held else OTHERS_S

    async def _elected(self) -> bool:
        """Wait for the lease; False where the end comes first."""
        if self._lease.held:
            return True
        waits = [asyncio.ensure_future(self._lease.acquire()), asyncio.ensure_future(self._ended.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return not self._ending

    async def _take_over(self) -> None:
        """Raise the term first, then load: from here on no other leader's commit lands. Either may take
        longer than the lease lasts. Then another leader, which has begun by now, is deposed for nothing: this
        one does not lead."""
        settings = self._settings
        term = await self._store.raise_term(settings.pool)
        if self._before_ready is not None:
            await self._before_ready()
        self._must_hold()
        snapshot, undecodable = await self._store.load(settings.pool, term)
        self._must_hold()
        pool = Pool.load(snapshot, self._clock.now_ms(), self._rules(), settings.silence)
        self._commit_no = snapshot.commit_no
        self.term, self.since_ms = term, self._clock.now_ms()
        self._audience.leading(term, snapshot)
        await self._set_aside(pool, snapshot, undecodable)
        self._applier = Applier(pool, self._in_hand, self._aftermath)
        self._pool = pool
        self.ready.set()
        self._log.info("leading", term=term, jobs=len(snapshot.jobs), active=pool.active_count)

    def _must_hold(self) -> None:
        if not self._lease.held:
            raise StaleTerm("this server has lost the lease of the pool")

    async def _set_aside(self, pool: Pool, snapshot: PoolSnapshot, undecodable: dict[str, str]) -> None:
        """The first commit of a leader: jobs that it cannot carry on."""
        batch = Batch()
        for command in self._aftermath.quarantines():
            pool.apply(command, self._clock.now_ms())
        batch.close(pool, self._clock.now_ms())
        assert batch.changes is not None
        for job, what in undecodable.items():
            self._log.error("a job does not load", job=job, what=what)
        for row in snapshot.set_aside:
            row.state, row.reason = JobState.QUARANTINED.value, Reason.INTERNAL_ERROR.value
            row.message = f"Its record in the store cannot be read: {undecodable[row.id]}"
            batch.changes.jobs.append(row)
        await self._commit(batch)
        await self._aftermath.settled(self._store)

    def _step_down(self) -> None:
        self._pool = self._applier = None
        self.ready.clear()
        refusal = self._unavailable()
        entries, self._inbox = self._inbox, deque()
        for entry in entries:
            entry.answered(refusal)
        self._audience.stepped_down()

    # --- work ---------------------------------------------------------------------------------------
    async def _lead_while_ours(self) -> None:
        """Raises what made this leadership end; returns once all is committed after ``end``, or where another
        server is to lead."""
        self._leaving = False
        watching = asyncio.create_task(self._lease.leaving())
        watching.add_done_callback(self._let_go)
        try:
            await self._lead()
        finally:
            watching.remove_done_callback(self._let_go)
            watching.cancel()
        if self._leaving or self._ending:  # the lease first: nodes then find the next leader, not this one
            self.ready.clear()
            await self._lease.give_up()

    def _let_go(self, _: object) -> None:
        self._leaving = True
        if not self._lease.held:  # nodes are not to wait for what the store may never answer
            self.ready.clear()
            self._trouble = "this server has lost the lease"
            self._audience.stepped_down()
        self._wake.set()

    async def _lead(self) -> None:
        batch = Batch()
        flying: asyncio.Task[None] | None = None
        sending: Batch | None = None
        try:
            while True:
                if flying is not None and flying.done():
                    flying.result()
                    flying = sending = None
                self._must_hold()
                self._apply_inbox(batch)
                if flying is None:
                    if self._due(batch):
                        self._close(batch)
                        sending, batch = batch, Batch()
                        flying = asyncio.create_task(self._commit(sending))
                        flying.add_done_callback(self._woken)
                    elif self._ending or self._leaving:
                        return
                await self._sleep(batch, idle=flying is None)
        finally:
            await self._clear_away(flying, sending, batch)

    async def _clear_away(
        self, flying: asyncio.Task[None] | None, sending: Batch | None, batch: Batch
    ) -> None:
        """The commit under way may yet land; what was computed on top of it never leaves."""
        if flying is not None and sending is not None:
            await asyncio.wait([flying], timeout=None if self._lease.held else FLYING_S)
            if not flying.done():
                flying.cancel()
                sending.refuse(self._unavailable())
            elif not flying.cancelled() and flying.exception() is not None:
                sending.refuse(self._unavailable())
        batch.refuse(self._unavailable())

    def _apply_inbox(self, batch: Batch) -> None:
        assert self._applier is not None
        alone = self._aftermath.alone
        while self._inbox and not (alone and batch.entries):
            entry = self._inbox.popleft()
            if alone:
                entry, *others = apart(entry)
                self._inbox.extendleft(reversed(others))
            try:
                batch.apply(self._applier, entry, self._clock.now_ms())
            except PoisonedEntry:
                self.ready.clear()  # before its caller hears of it and tries again
                entry.answered(self._unavailable())
                raise

    def _due(self, batch: Batch) -> bool:
        """Whether the batch is to be committed now. Also applies a Tick whose time has come."""
        assert self._pool is not None and self._applier is not None
        if batch.entries and self._aftermath.alone:
            return True
        now_ms = self._clock.now_ms()
        wakeup_ms = self._pool.next_wakeup_ms()
        if wakeup_ms is not None and wakeup_ms <= now_ms:
            batch.apply(self._applier, Entry(Tick(), _unheard), now_ms)
            return True
        if not batch.entries:
            return False
        return self._ending or self._leaving or self._held_s(batch) <= 0

    def _held_s(self, batch: Batch) -> float:
        """For how long to hold a batch back so that more fits into its commit (0: not at all).

        Under load a commit carries a quarter of what is under way, or what arrives in the window;
        the window counts from the last commit, so that the first report after a silence never waits.
        """
        assert self._pool is not None
        active = self._pool.active_count
        if active <= self._settings.window_above or batch.updates >= active // 4:
            return 0.0
        return self._committed_at_s + self._settings.window_ms / 1000 - _monotonic_s()

    def _close(self, batch: Batch) -> None:
        assert self._pool is not None
        self._committed_at_s = _monotonic_s()
        begun_s = perf_counter()
        try:
            batch.close(self._pool, self._clock.now_ms())
        except PoisonedEntry:
            self.ready.clear()
            batch.refuse(self._unavailable())
            raise
        self._meter.pass_took(perf_counter() - begun_s)

    async def _commit(self, batch: Batch) -> None:
        changes = batch.changes
        assert changes is not None
        if not changes.empty:
            begun_s = perf_counter()
            try:
                await self._store.commit(self._settings.pool, self.term, self._commit_no, changes)
            except BaseException as error:
                self.ready.clear()
                self._trouble = str(error)
                try:
                    if isinstance(error, Unstorable):
                        self._aftermath.not_taken(batch, error)
                finally:
                    batch.refuse(self._unavailable())
                raise
            self._meter.commit_took(perf_counter() - begun_s)
            self._commit_no += 1
            self._commits += 1
            self._aftermath.committed()
            self._trouble = ""
        batch.answer()
        self._audience.committed(changes, batch.orders)

    async def _sleep(self, batch: Batch, *, idle: bool) -> None:
        """Until something arrives, the commit under way is done, or a timer is due."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None
        if idle and not self._wake.is_set():
            if not batch.entries:
                garbage.collect_if_due()
            waits = [self._held_s(batch)] if batch.entries else []
            assert self._pool is not None
            wakeup_ms = self._pool.next_wakeup_ms()
            if wakeup_ms is not None:
                waits.append((wakeup_ms - self._clock.now_ms()) / 1000)
            if waits:
                timer = loop.call_later(max(0.0, min(waits)), self._wake.set)
        await self._wake.wait()
        self._wake.clear()
        if timer is not None:
            timer.cancel()

    def _woken(self, _: object) -> None:
        self._wake.set()


def _monotonic_s() -> float:
    return asyncio.get_running_loop().time()


def _unheard(_: object) -> None:
    """The answer of a Tick."""
