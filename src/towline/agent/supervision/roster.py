"""All that the supervisor's parts share: the attempts, the journal, and what the agent is yet to hear."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Iterator
from itertools import count
from typing import Protocol

from towline.agent.supervision import escapees, kernel
from towline.agent.supervision.attempt import Attempt, Replay
from towline.agent.supervision.journal import Forgotten, Journal, Record, Stray
from towline.agent.supervision.leasing.expiring import Expiring
from towline.core.commands import AttemptUpdate
from towline.runtime.port import Runtime, StartFailed


class RuntimeSource(Protocol):
    def get(self, name: str) -> Runtime | None:
        """The node's runtime of this name; None where it has no such."""
        ...


class Roster:
    """``updates`` go to the agent after the journal's next flush; ``by_pid`` has our own children only."""

    def __init__(self, node_dir: str, journal: Journal, runtimes: RuntimeSource) -> None:
        replay = Replay(journal.found)
        journal.found = []
        self.node_dir = node_dir
        self.journal = journal
        self.attempts: dict[str, Attempt] = replay.attempts
        self.strays: dict[int, Stray] = replay.strays
        self.turn = replay.turn
        self.by_pid: dict[int, Attempt] = {}
        self.updates: list[AttemptUpdate] = []
        self.starters = 0
        self.runtimes = runtimes
        self.leases = Expiring(node_dir)
        self._timers: list[tuple[int, int, Attempt, str]] = []
        self._ticket = count()

    def runtime(self, name: str) -> Runtime:
        """Raises StartFailed where this node has no such runtime."""
        found = self.runtimes.get(name)
        if found is None:
            raise StartFailed(f"this node has no runtime {name!r}")
        return found

    def unfinished(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts.values() if attempt.update is None]

    def living(self) -> list[Attempt]:
        """Those of them that have not ended: of the others, only the last output is missing."""
        return [attempt for attempt in self.unfinished() if attempt.held is None]

    def marks(self) -> set[escapees.Mark]:
        """Those of all attempts that have not ended."""
        found = (escapees.mark(attempt.plan.env) for attempt in self.living())
        return {mark for mark in found if mark is not None}

    def at(self, when_ms: int, attempt: Attempt, action: str) -> None:
        """Remember that ``action`` is due for the attempt at this CLOCK_MONOTONIC."""
        heapq.heappush(self._timers, (when_ms, next(self._ticket), attempt, action))

    def due(self, now_ms: int) -> Iterator[tuple[Attempt, str]]:
        """What is due by now for attempts that have not ended; each is given once."""
        while self._timers and self._timers[0][0] <= now_ms:
            _, _, attempt, action = heapq.heappop(self._timers)
            if attempt.update is None:
                yield attempt, action

    def next_due_ms(self) -> int | None:
        return self._timers[0][0] if self._timers else None

    def forget(self, names: tuple[str, ...]) -> None:
        """The server has these endings on record. Unknown and unfinished ones are left out."""
        over = [name for name in names if (known := self.attempts.get(name)) and known.update]
        recorded = tuple([name for name in over if not self.attempts[name].unrecorded])
        for name in over:
            attempt = self.attempts[name]
            attempt.forgotten = True
            self.drop_if_over(attempt)
        if recorded:
            self.journal.add(Forgotten(recorded))

    def drop_if_over(self, attempt: Attempt) -> None:
        if attempt.forgotten and attempt.cleaned:
            del self.attempts[attempt.id]

    def known(self) -> tuple[AttemptUpdate, ...]:
        return tuple(attempt.now() for attempt in self.attempts.values() if not attempt.forgotten)

    def take_stray(self, pid: int, since_ms: int) -> Stray | None:
        """How a container's first process ended before its starter did. It began after ``since_ms``, when
        its starter was spawned (CLOCK_BOOTTIME): what began earlier had the same pid, which come again."""
        stray = self.strays.pop(pid, None)
        return stray if stray is not None and stray.start_ms >= since_ms - kernel.TICKS_MS else None

    def records(self) -> Iterator[Record]:
        for attempt in self.attempts.values():
            yield from attempt.records()
        if any(attempt.starting for attempt in self.attempts.values()):
            yield from self.strays.values()

    def tend_journal(self) -> None:
        if self.journal.large and not self.journal.gone:
            with contextlib.suppress(OSError):  # on a full disk it stays as large as it is
                self.journal.rewrite(self.turn, self.records())
