"""How a new supervisor takes up what an earlier one left: every attempt ends up known, or lost.

What runs is not its child but the keeper's (or, where both died, init's): a pidfd tells of the end,
and the keeper's exits file, else the kernel's own record behind the pidfd, tells how it ended.
"""

from __future__ import annotations

import os
import select
from pathlib import Path

from towline.agent.supervision import escapees, kernel
from towline.agent.supervision.attempt import Attempt
from towline.agent.supervision.ending import Ending
from towline.agent.supervision.handover import KeeperLink, Orphan
from towline.agent.supervision.journal import Started
from towline.agent.supervision.kernel import Exit
from towline.agent.supervision.pipes import Pipes
from towline.agent.supervision.roster import Roster
from towline.agent.supervision.starting import Starting
from towline.errors import NO_ROOM

_EVIDENCE_MS = 150
_PATIENCE_MS = 3000
_LOOK_MS, _LOOK_LATER_MS = 20, 500
_REBOOTED = "the machine was restarted while it ran"
_GAP = "output may be missing here: keeper and supervisor died together"
_UNSEEN = "it ended while neither keeper nor supervisor was alive"


class Recovery:
    """Runs once at the start; after that it follows what it has adopted to its end."""

    def __init__(self, roster: Roster, pipes: Pipes, ending: Ending, starting: Starting,
                 keeper: KeeperLink, epoll: select.epoll) -> None:  # fmt: skip
        self.roster = roster
        self.pipes = pipes
        self.ending = ending
        self.starting = starting
        self.keeper = keeper
        self.adopted: dict[int, Attempt] = {}
        self._epoll = epoll
        self._puzzling: dict[int, int] = {}
        self._look_at_ms = 0

    def run(self) -> None:
        journal = self.roster.journal
        unfinished = self.roster.unfinished()
        self._take_slots()
        if journal.rebooted:
            self.keeper.clear_exits()
            for attempt in unfinished:
                if attempt.held is None:
                    self.ending.lost(attempt, _REBOOTED)
        else:
            self._take_attempts([attempt for attempt in unfinished if attempt.held is None])
        for attempt in unfinished:
            if attempt.held is not None:
                self._take_output(attempt)
        for slot in list(self.pipes.slots.values()):
            if slot.attempt is None:
                self.pipes.release(slot)
        for attempt in list(self.roster.attempts.values()):
            if (
                (attempt.update is not None or attempt.held is not None)
                and not attempt.cleaned
                and attempt not in self.ending.helpers.values()
            ):
                attempt.cleaned = self.ending.clean(attempt)
        escapees.kill_unclaimed(self.roster.node_dir, self.roster.marks())
        self.roster.leases.clear(
            {attempt.id for attempt in self.roster.attempts.values() if not attempt.cleaned}
        )
        journal.flush()
        for turn in (0, 1):
            self.starting.evidence.refill(turn)
        try:
            journal.rewrite(0, self.roster.records())
            self.roster.turn = 0
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            journal.begin_again(self.roster.turn)

    def _take_attempts(self, unfinished: list[Attempt]) -> None:
        for attempt in unfinished:
            if attempt.started is not None:
                self._adopt_or_lose(attempt)
        waiting = [attempt for attempt in unfinished if attempt.started is None]
        if waiting and not self._resolve(waiting[0]):
            waiting = waiting[1:]
        self.starting.queue.extend(waiting)

    def _take_slots(self) -> None:
        """Pipes of the supervisor before us, of which the keeper has both ends of the pair."""
        for name, fd in list(self.keeper.held.items()):
            kind, _, number = name.partition(".")
            other = self.keeper.held.get(f"err.{number}")
            if kind == "out" and other is not None:
                self.pipes.add(int(number), (fd, other), told=True)

    def _resolve(self, attempt: Attempt) -> bool:
        """The first that has no record of its start may have been spawned all the same. Returns
        whether it was not, and is to be started."""
        runtime = self.roster.runtimes.get(attempt.plan.runtime)
        if runtime is None or not hasattr(runtime, "evidence"):
            if Path(attempt.plan.directory).exists():
                self.ending.lost(attempt, "its supervisor was killed while it was being started")
                return False
            return True
        spawned_ms = self.starting.evidence.spawned_at_ms(self.roster.turn)
        if spawned_ms is None:
            return True
        found = self._candidates(attempt, spawned_ms)
        if len(found) != 1:
            self.ending.lost(attempt, "its supervisor was killed while it was being started")
            return False
        pid, start_ms = found[0]
        slot = next(
            (slot for slot in self.pipes.slots.values() if slot.attempt is None and _used(slot.fds)), None
        )
        started_ms = start_ms - kernel.boottime_ms()
        at_ms, monotonic_ms = kernel.wall_and_monotonic_ms()
        attempt.started = Started(
            attempt.id, pid, False, at_ms + started_ms, monotonic_ms + started_ms,
            start_ms, start_ms, slot.number if slot else -1, slot.inodes if slot else (0, 0),
        )  # fmt: skip
        attempt.pid = pid
        self.roster.journal.add(attempt.started)
        self.roster.journal.flush()
        self._adopt(attempt)
        return False

    def _candidates(self, attempt: Attempt, spawned_ms: int) -> list[tuple[int, int]]:
        """Living processes with its mark, and session leaders that ended unknown and began just then."""
        self.keeper.read_exits()
        known = {a.pid for a in self.roster.attempts.values() if a.pid}
        found = [
            (orphan.pid, orphan.start_ms)
            for orphan in self.keeper.orphans
            if orphan.session == orphan.pid and orphan.pid not in known
            and abs(orphan.start_ms - spawned_ms) <= _EVIDENCE_MS
        ]  # fmt: skip
        wanted = escapees.mark(attempt.plan.env)
        for pid in escapees.marked(wanted) if wanted is not None else []:
            process = kernel.process(pid)
            if process is not None and process.session == pid:
                found.append((pid, process.start_ms))
        return found

    def _adopt_or_lose(self, attempt: Attempt) -> None:
        """One attempt that cannot be taken up must not keep the node from coming up again and again."""
        try:
            self._adopt(attempt)
        except OSError as error:
            self.ending.lost(attempt, f"it could not be taken up again: {error}")

    def _adopt(self, attempt: Attempt) -> None:
        """Follow a process that an earlier supervisor started."""
        started = attempt.started
        assert started is not None
        attempt.own = False
        self.roster.leases.take_up(attempt.plan, attempt.pid)
        self._take_log(attempt, started)
        attempt.pidfd = self._watch(attempt)
        if attempt.slot is None and attempt.pidfd >= 0:
            self._reopen_pipes(attempt)
        if attempt.slot is not None:
            self.pipes.ready.update(dict.fromkeys(_readable(attempt.slot.fds), attempt))
        elif attempt.pidfd >= 0 and not attempt.starting:
            attempt.log.remark(1, _GAP, kernel.wall_ms())
            attempt.remark = _GAP
        if attempt.pidfd < 0:
            self._ended(attempt)
            return
        self.adopted[attempt.pidfd] = attempt
        self._epoll.register(attempt.pidfd, select.EPOLLIN)
        if not attempt.starting:
            self.starting.runs(attempt)

    def _take_log(self, attempt: Attempt, started: Started) -> None:
        attempt.log = attempt.open_log(resume=True)
        slot = self.pipes.slots.get(started.slot)
        if slot is not None and slot.inodes == started.inodes:
            slot.attempt = attempt
            attempt.slot = slot

    def _take_output(self, attempt: Attempt) -> None:
        """Its end is known; the last of its output may be in its pipe still."""
        if attempt.started is not None:
            self._take_log(attempt, attempt.started)
        self.ending.try_output(attempt)

    def _watch(self, attempt: Attempt) -> int:
        """A pidfd of its process, the keeper's copy where there is one; -1 if it is gone."""
        name = f"pid.{attempt.pid}.{attempt.id}"
        held = self.keeper.held.get(name)
        if held is not None:
            return held
        try:
            pidfd = os.pidfd_open(attempt.pid)
        except OSError:
            return -1
        process = kernel.process(attempt.pid)
        if process is None or not _began(attempt, process.start_ms):
            os.close(pidfd)
            return -1
        self.keeper.give({name: pidfd})
        return pidfd

    def _reopen_pipes(self, attempt: Attempt) -> None:
        """Keeper and supervisor died together: the process itself still holds its pipes."""
        assert attempt.started is not None
        fds = [_reopen(attempt.pid, inode) for inode in attempt.started.inodes]
        if any(fd < 0 for fd in fds):
            for fd in fds:
                if fd >= 0:
                    os.close(fd)
            return
        attempt.slot = self.pipes.add(self.pipes.unused_number(), (fds[0], fds[1]), told=False)
        attempt.slot.attempt = attempt

    def ended(self, pidfd: int) -> None:
        """A pidfd says that its process has ended."""
        self._epoll.unregister(pidfd)
        self._puzzling[pidfd] = kernel.monotonic_ms() + _PATIENCE_MS
        self.look_again(at_once=True)

    def look_again(self, at_once: bool = False) -> None:
        """Take the endings that can be told by now: the record may come after the end."""
        now_ms = kernel.monotonic_ms()
        if not self._puzzling or (now_ms < self._look_at_ms and not at_once):
            return
        self.keeper.read_exits()
        for pidfd, patience_ms in list(self._puzzling.items()):
            attempt = self.adopted[pidfd]
            if self._status(attempt) is None and (now_ms <= patience_ms or _is_kept(attempt)):
                continue
            del self._puzzling[pidfd], self.adopted[pidfd]
            self._ended(attempt)
        patient = any(patience_ms >= now_ms for patience_ms in self._puzzling.values())
        self._look_at_ms = now_ms + (_LOOK_MS if patient else _LOOK_LATER_MS)

    @property
    def next_look_ms(self) -> int | None:
        """CLOCK_MONOTONIC of the next ``look_again``; None: there is nothing to look for."""
        return self._look_at_ms if self._puzzling else None

    def _status(self, attempt: Attempt) -> Exit | None:
        for orphan in self.keeper.orphans:
            if orphan.pid == attempt.pid and _began(attempt, orphan.start_ms):
                return _exit(orphan)
        status = kernel.exit_record(attempt.pidfd) if attempt.pidfd >= 0 else None
        return None if status is None else Exit(attempt.pid, status)

    def _ended(self, attempt: Attempt) -> None:
        self.keeper.read_exits()
        found = self._status(attempt)
        if attempt.pidfd >= 0 and not attempt.starting:
            attempt_pidfd, attempt.pidfd = attempt.pidfd, -1
            self.keeper.take_back([f"pid.{attempt.pid}.{attempt.id}"])
            os.close(attempt_pidfd)
        if attempt.starting:
            self._starter_ended(attempt, found)
        elif found is None:
            self.ending.lost(attempt, _UNSEEN)
        else:
            self.ending.exited(attempt, found)

    def _starter_ended(self, attempt: Attempt, found: Exit | None) -> None:
        """Where nobody saw how the starter ended, what it made still tells."""
        self.keeper.take_back([f"pid.{attempt.pid}.{attempt.id}"])
        if attempt.pidfd >= 0:
            os.close(attempt.pidfd)
            attempt.pidfd = -1
        first = self.starting.starter_ended(attempt, 0 if found is None else found.status)
        if first is not None:
            self.ending.exited(attempt, first)
        elif attempt.update is None:
            self._adopt(attempt)


def _is_kept(attempt: Attempt) -> bool:
    """Whether the keeper has its end, and no room to write it down: so long it does not reap it."""
    process = kernel.process(attempt.pid)
    if process is None or process.state != "Z" or process.parent != os.getppid():
        return False
    return _began(attempt, process.start_ms)


def _began(attempt: Attempt, start_ms: int) -> bool:
    """Whether a process with its pid that began at ``start_ms`` is its process: pids come again."""
    if attempt.confirmed is not None and attempt.confirmed.start_ms:
        return abs(start_ms - attempt.confirmed.start_ms) <= kernel.TICKS_MS
    started = attempt.started
    assert started is not None
    if attempt.confirmed is not None:  # it had ended before its starter: its start was not seen
        return start_ms >= started.from_ms - kernel.TICKS_MS
    return started.from_ms - kernel.TICKS_MS <= start_ms <= started.to_ms + kernel.TICKS_MS


def _exit(orphan: Orphan) -> Exit:
    return Exit(orphan.pid, orphan.status, orphan.cpu_ms, orphan.peak_kib)


def _readable(fds: tuple[int, int]) -> list[int]:
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return [fd for fd, event in poller.poll(0) if event & select.POLLIN]


def _used(fds: tuple[int, int]) -> bool:
    """Whether something writes to these pipes, or has."""
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return len([1 for _, event in poller.poll(0) if event == select.POLLHUP]) < len(fds)


def _reopen(pid: int, inode: int) -> int:
    """A read end of the pipe with this inode, through a process that holds it; -1 where none does."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return -1
    for name in names:
        path = f"/proc/{pid}/fd/{name}"
        try:
            if Path(path).readlink().as_posix() == f"pipe:[{inode}]":
                return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
    return -1
