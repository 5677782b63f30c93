"""How attempts start: accepted in order, spawned one by one, each on record before the next.

A spawn and the record of its pid cannot be one step. Two evidence files take turns: the child
empties the one of its turn as its first act, and it is filled again once the pid is on record. So
a new supervisor knows of the one attempt it is unsure about whether there was a child at all.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator

from towline.agent.supervision import kernel
from towline.agent.supervision.attempt import Attempt
from towline.agent.supervision.ending import TIMEOUT, Ending
from towline.agent.supervision.journal import Accepted, Confirmed, Started
from towline.agent.supervision.kernel import Exit
from towline.agent.supervision.pipes import Pipes
from towline.agent.supervision.roster import Roster
from towline.errors import NO_ROOM
from towline.logs import Writer
from towline.model.states import Reason
from towline.runtime.port import Launched, Plan, Runtime, StartFailed

SAY_RUNNING_MS = 100
_FULL = b"1"
_NO_ROOM = "There is no space left on this node's disk."


class Evidence:
    """``path(turn)`` is emptied by the child spawned in that turn, and refilled by ``refill``. On a full disk
    it may stay empty: then no child may be spawned in a turn of its until ``ready`` has filled it."""

    def __init__(self, directory: str) -> None:
        self._paths = [f"{directory}/spawned.{turn}" for turn in (0, 1)]
        self._files = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for path in self._paths]
        self._empty: set[int] = set()

    def path(self, turn: int) -> str:
        return self._paths[turn % 2]

    def refill(self, turn: int) -> None:
        self._empty.discard(turn % 2)
        try:
            os.pwrite(self._files[turn % 2], _FULL, 0)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self._empty.add(turn % 2)

    def ready(self, turn: int) -> bool:
        """Whether it would tell of a child that is spawned in this turn."""
        if turn % 2 in self._empty:
            self.refill(turn)
        return turn % 2 not in self._empty

    def spawned_at_ms(self, turn: int) -> int | None:
        """When (CLOCK_BOOTTIME) a child emptied it; None if none did."""
        stat = os.fstat(self._files[turn % 2])
        if stat.st_size > 0:
            return None
        return stat.st_mtime_ns // 1_000_000 - kernel.wall_ms() + kernel.boottime_ms()


class Starting:
    def __init__(self, roster: Roster, pipes: Pipes, ending: Ending, evidence: Evidence) -> None:
        self.roster = roster
        self.pipes = pipes
        self.ending = ending
        self.evidence = evidence
        self.folders = ending.folders
        self.queue: deque[Attempt] = deque()
        self._unsaid: deque[tuple[int, Attempt]] = deque()

    def accept(self, plans: Iterable[Plan]) -> None:
        """Attempts that the journal knows are left as they are; their endings are told again."""
        for plan in plans:
            known = self.roster.attempts.get(plan.attempt)
            if known is None:
                attempt = self.roster.attempts[plan.attempt] = Attempt(plan.attempt, plan)
                if self.roster.journal.tight:
                    # Very many may come: nothing of them is lost where nobody remembers them.
                    attempt.unrecorded = self.roster.journal.spent
                    self.ending.failed(attempt, StartFailed(_NO_ROOM, Reason.DISK_FULL.value))
                    continue
                self.roster.journal.add(Accepted(plan))
                self.queue.append(attempt)
            elif known.update is not None and not known.forgotten:
                self.roster.updates.append(known.now())

    def start_some(self, limit: int) -> None:
        """Start up to ``limit`` of those that wait."""
        self.roster.journal.flush()
        while self.queue and limit > 0:
            attempt = self.queue.popleft()
            if attempt.update is None:
                self._start(attempt)
                limit -= 1

    def _start(self, attempt: Attempt) -> None:
        leases = self.roster.leases
        if not leases.may_start(attempt.plan):
            self.ending.expire(attempt)
            return
        if not self.evidence.ready(self.roster.turn):
            self.ending.failed(attempt, StartFailed(_NO_ROOM, Reason.DISK_FULL.value))
            return
        try:
            runtime = self.roster.runtime(attempt.plan.runtime)
            leases.enter(attempt.plan)
            self.folders.take(attempt.plan.directory)
            self.folders.take(attempt.plan.out)
            log = _output(attempt)
            from_ms = kernel.boottime_ms()
            launched = self._launch(attempt, runtime)
        except StartFailed as error:
            self.evidence.refill(self.roster.turn)
            self.ending.failed(attempt, error)
            return
        slot = attempt.slot
        assert slot is not None
        at_ms, monotonic_ms = kernel.wall_and_monotonic_ms()
        started = Started(
            attempt.id, launched.pid, not launched.direct, at_ms, monotonic_ms,
            from_ms, kernel.boottime_ms(), slot.number, slot.inodes,
        )  # fmt: skip
        self.roster.journal.add(started)
        self.roster.journal.flush()
        self.evidence.refill(self.roster.turn)
        self.roster.turn += 1
        self.roster.by_pid[launched.pid] = attempt
        leases.runs(attempt.plan, launched.pid)
        attempt.started = started
        attempt.pid = launched.pid
        attempt.starting = not launched.direct
        self.roster.starters += attempt.starting
        attempt.log = log
        if not attempt.starting:
            self.runs(attempt)

    def _launch(self, attempt: Attempt, runtime: Runtime) -> Launched:
        if hasattr(runtime, "evidence"):
            runtime.evidence = self.evidence.path(self.roster.turn)
        try:
            attempt.slot = self.pipes.take(attempt)
            out, err = attempt.slot.open_ends()
        except OSError as error:
            raise StartFailed(f"no pipes for its output: {error.strerror}") from error
        try:
            return runtime.launch(attempt.plan, out, err)
        except OSError as error:
            raise StartFailed(f"{runtime.name}: {error}") from error
        finally:
            os.close(out)
            os.close(err)

    def runs(self, attempt: Attempt) -> None:
        """Its first process is there: its time counts, and the agent will be told unless it is short."""
        assert attempt.started is not None
        since_ms = attempt.started.monotonic_ms
        if attempt.plan.timeout_ms is not None:
            self.roster.at(since_ms + attempt.plan.timeout_ms, attempt, TIMEOUT)
        self.ending.watch_disk(attempt)
        if attempt.stop is not None:
            self.ending.send_stop(attempt, first=True)
        self._unsaid.append((since_ms + SAY_RUNNING_MS, attempt))

    def starter_ended(self, attempt: Attempt, status: int) -> Exit | None:
        """What ``launch`` spawned is over; returns the exit of the first process if that came before."""
        self.roster.starters -= attempt.own
        try:
            pid = self.roster.runtime(attempt.plan.runtime).confirm(attempt.plan, status)
        except StartFailed as error:
            self.ending.failed(attempt, error)
            return None
        process = kernel.process(pid)
        attempt.confirmed = Confirmed(attempt.id, pid, process.start_ms if process else 0)
        attempt.pid = pid
        attempt.starting = False
        self.roster.leases.runs(attempt.plan, pid)
        self.roster.journal.add(attempt.confirmed)
        self.roster.journal.flush()
        assert attempt.started is not None
        stray = self.roster.take_stray(pid, attempt.started.from_ms)
        if stray is not None:
            return Exit(pid, stray.status, stray.cpu_ms, stray.peak_kib, stray.executed)
        if attempt.own:
            self.roster.by_pid[pid] = attempt
            self.runs(attempt)
        return None

    def say_running(self, now_ms: int) -> None:
        """Tell of those that have been running for long enough to be told of."""
        for attempt in self._old_enough(now_ms):
            self.roster.updates.append(attempt.now())

    def _old_enough(self, now_ms: int) -> Iterator[Attempt]:
        while self._unsaid and (self._unsaid[0][0] <= now_ms or self._unsaid[0][1].update is not None):
            _, attempt = self._unsaid.popleft()
            if attempt.update is None:
                yield attempt

    def next_due_ms(self) -> int | None:
        return self._unsaid[0][0] if self._unsaid else None


def _output(attempt: Attempt) -> Writer:
    """Raises StartFailed."""
    try:
        return attempt.open_log()
    except OSError as error:
        raise StartFailed(f"its secrets cannot be masked in what it prints: {error}") from error
