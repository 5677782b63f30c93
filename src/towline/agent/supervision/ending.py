"""How attempts end: by themselves, at a stop or a timeout, or unseen; and what is cleaned up after."""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import time

from msgspec import structs

from towline import logs
from towline.agent.supervision import escapees, kernel
from towline.agent.supervision.attempt import Attempt
from towline.agent.supervision.folders import Folders
from towline.agent.supervision.journal import Cleaned, Ended, Held, Started, Stopping
from towline.agent.supervision.kernel import Exit
from towline.agent.supervision.pipes import Pipes
from towline.agent.supervision.roster import Roster
from towline.core.commands import AttemptUpdate
from towline.model.states import AttemptState, Reason
from towline.runtime import secrets
from towline.runtime.linux.written import Written
from towline.runtime.port import Runtime, StartFailed, Usage
from towline.runtime.spawning import DEFAULT_PATH, find_program, spawn
from towline.runtime.verdict import TAIL_BYTES, disk_full, verdict

TIMEOUT = "timeout"
KILL = "kill"
DISK = "disk"
OUTPUT = "output"
_DISK_EVERY_MS = 1000
_DISK_GOES_ON_MS = 5
_DISK_ENTRIES_A_TURN = 2000
_KILL_AGAIN_MS = 1000
_OUTPUT_AGAIN_MS = 300
_CODE_1 = 1 << 8  # what an OCI runtime ends with where the kernel executes no program


class Ending:
    """Writes each end to the journal before anybody hears of it; the caller reaps after that."""

    def __init__(self, roster: Roster, pipes: Pipes) -> None:
        self.roster = roster
        self.pipes = pipes
        self.folders = Folders(roster.node_dir)
        self.helpers: dict[int, Attempt] = {}
        self._written: dict[str, Written] = {}
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def stop(self, attempt: Attempt, reason: str, grace_ms: int) -> None:
        """SIGTERM now, SIGKILL to all of it after the grace. An end that was there before stands."""
        if attempt.update is not None or attempt.held is not None:
            return
        kill_ms = kernel.monotonic_ms() + grace_ms
        if attempt.started is None:
            self._end(attempt, AttemptUpdate(
                attempt=attempt.id, state=AttemptState.FINISHED, reason=reason, finished_at=_now_ms(attempt),
            ))  # fmt: skip
            return
        first = attempt.stop is None
        if first and not attempt.starting and self.has_ended(attempt):
            return
        if attempt.stop is None or kill_ms < attempt.stop.kill_ms:
            kept = reason if attempt.stop is None else attempt.stop.reason
            attempt.stop = Stopping(attempt.id, kept, kill_ms)
            self.roster.journal.add(attempt.stop)
            self.roster.journal.flush()
            self.send_stop(attempt, first)

    def expire(self, attempt: Attempt) -> None:
        """Its node lease has ended, or had before it started."""
        self.stop(attempt, Reason.LEASE_EXPIRED, self.roster.leases.grace_left_ms(attempt.plan.grace_ms))

    def tell_leases(self, now_ms: int) -> None:
        """End what lives by the node lease where that has ended."""
        for name in self.roster.leases.overdue(now_ms):
            self.expire(self.roster.attempts[name])

    def send_stop(self, attempt: Attempt, first: bool) -> None:
        """The signals of ``attempt.stop``, as far as there is a process to take them."""
        if attempt.stop is None or attempt.starting:
            return
        if attempt.stop.kill_ms <= kernel.monotonic_ms():
            self._kill(attempt)
        else:
            if first:
                self._signal(attempt, signal.SIGTERM)
            self.roster.at(attempt.stop.kill_ms, attempt, KILL)

    def tick(self, now_ms: int) -> None:
        """Timeouts and ends of grace that are due."""
        for attempt, action in self.roster.due(now_ms):
            if attempt.held is not None:
                if action == OUTPUT:
                    self.try_output(attempt)
            elif action == TIMEOUT:
                if attempt.stop is None:
                    self.stop(attempt, Reason.TIMED_OUT, attempt.plan.grace_ms)
            elif action == DISK:
                self._look_at_disk(attempt, now_ms)
            elif attempt.stop is not None and attempt.stop.kill_ms <= now_ms and not attempt.starting:
                self._kill(attempt)

    def watch_disk(self, attempt: Attempt) -> None:
        """See from now on that it does not write more than it may."""
        if attempt.plan.disk_bytes:
            self.roster.at(kernel.monotonic_ms() + _DISK_EVERY_MS, attempt, DISK)

    def _look_at_disk(self, attempt: Attempt, now_ms: int) -> None:
        plan = attempt.plan
        if attempt.id not in self._written:
            self._written[attempt.id] = Written(self.roster.runtime(plan.runtime).written(plan))
        used_bytes = self._written[attempt.id].look(_DISK_ENTRIES_A_TURN)
        if used_bytes is not None and used_bytes > plan.disk_bytes and attempt.stop is None:
            self.stop(attempt, Reason.DISK_FULL, 0)
            return
        self.roster.at(now_ms + (_DISK_GOES_ON_MS if used_bytes is None else _DISK_EVERY_MS), attempt, DISK)

    def _kill(self, attempt: Attempt) -> None:
        self._signal(attempt, signal.SIGKILL)
        self.roster.at(kernel.monotonic_ms() + _KILL_AGAIN_MS, attempt, KILL)

    def _signal(self, attempt: Attempt, number: int) -> None:
        if not self.has_ended(attempt):
            self.roster.runtime(attempt.plan.runtime).signal(attempt.plan, attempt.pid, number)

    def has_ended(self, attempt: Attempt) -> bool:
        """Whether its first process is a zombie or gone, even if we have not taken the exit yet."""
        if attempt.held is not None:
            return True  # and its pid may be somebody else's by now
        if attempt.own:
            return kernel.has_exited(attempt.pid)
        return attempt.pidfd < 0 or bool(_readable(attempt.pidfd))

    def exited(self, attempt: Attempt, found: Exit) -> None:
        """Its first process has ended (and, if it is our child, is not reaped yet)."""
        runtime = self.roster.runtime(attempt.plan.runtime)
        if attempt.own:
            runtime.signal(attempt.plan, found.pid, signal.SIGKILL)
        if not attempt.own or attempt.plan.lease_ms:
            escapees.kill_all(attempt.plan)
        try:
            usage = runtime.measure(attempt.plan, found.executed or found.status != _CODE_1)
        except StartFailed as error:
            self.failed(attempt, error)
            return
        self._close_output(attempt)
        code = os.waitstatus_to_exitcode(found.status)
        reason, message = self._why(attempt, usage, code)
        self.roster.leases.leave(attempt.plan)
        # The cgroup's counters; where there is none, what the kernel counted of the process and its children.
        self._end(attempt, AttemptUpdate(
            attempt=attempt.id,
            state=AttemptState.FINISHED,
            reason=reason,
            message=" ".join(part for part in (message, attempt.remark) if part) or None,
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            started_at=attempt.started.at_ms if attempt.started else None,
            finished_at=_now_ms(attempt),
            peak_memory_bytes=_peak_bytes(usage, found),
            cpu_ms=found.cpu_ms if usage.cpu_ms is None else usage.cpu_ms,
        ))  # fmt: skip

    def _why(self, attempt: Attempt, usage: Usage, code: int) -> tuple[str, str | None]:
        plan = attempt.plan
        if attempt.stop is not None:
            filled = attempt.stop.reason == Reason.DISK_FULL
            return attempt.stop.reason, disk_full(plan) if filled else None
        if code == -signal.SIGKILL and self.roster.leases.is_cut(plan):
            return Reason.LEASE_EXPIRED, None
        return verdict(plan, usage, code, lambda: tail(plan.logs))

    def failed(self, attempt: Attempt, error: StartFailed) -> None:
        """It could not be started, or its start was broken off by somebody: then it is lost."""
        cut = self.roster.leases.is_cut(attempt.plan)
        if error.reason == Reason.SUPERVISION_LOST and attempt.stop is None and not cut:
            self.lost(attempt, str(error))
            return
        self._close_output(attempt)
        reason, message = error.reason, str(error)
        if attempt.stop is not None:
            reason, message = attempt.stop.reason, "it was stopped while it was being started"
        elif cut:
            reason = Reason.LEASE_EXPIRED.value
        self._end(attempt, AttemptUpdate(
            attempt=attempt.id, state=AttemptState.FINISHED, reason=reason, message=message,
            started_at=attempt.started.at_ms if attempt.started else None, finished_at=_now_ms(attempt),
        ))  # fmt: skip

    def lost(self, attempt: Attempt, message: str) -> None:
        """Nobody can know how it ended; what may be left of it is killed."""
        escapees.kill_all(attempt.plan)
        self._close_output(attempt)
        cut = self.roster.leases.is_cut(attempt.plan)
        self._end(attempt, AttemptUpdate(
            attempt=attempt.id, state=AttemptState.LOST, message=message,
            reason=Reason.LEASE_EXPIRED if cut else Reason.SUPERVISION_LOST,
            started_at=attempt.started.at_ms if attempt.started else None, finished_at=kernel.wall_ms(),
        ))  # fmt: skip

    def _close_output(self, attempt: Attempt) -> None:
        """Its log stays open where the disk has no room for the last of it."""
        now_ms = kernel.wall_ms()
        if attempt.slot is not None:
            if not self.pipes.drain(attempt.slot, now_ms):
                return
            self.pipes.release(attempt.slot)
            attempt.slot = None
        if attempt.log is not None:
            attempt.log.finish(now_ms)
            if not attempt.log.stalled:
                attempt.log = None

    def _end(self, attempt: Attempt, update: AttemptUpdate) -> None:
        if attempt.image_digest is not None:
            update = structs.replace(update, image_digest=attempt.image_digest)
        if update.reason == Reason.LEASE_EXPIRED:
            update = structs.replace(update, state=AttemptState.LOST)
        self._written.pop(attempt.id, None)
        attempt.cleaned = self.clean(attempt)
        if attempt.cleaned:
            self.roster.leases.leave(attempt.plan)
        if attempt.log is not None:
            attempt.held = update
            self.roster.journal.add(Held(update, attempt.cleaned))
            self.roster.journal.flush()
            self.roster.updates.append(attempt.now())
            self.roster.at(kernel.monotonic_ms() + _OUTPUT_AGAIN_MS, attempt, OUTPUT)
            return
        self._keep_end(attempt, update)

    def try_output(self, attempt: Attempt) -> None:
        """One whose end is held: it is told if all of its output has room now."""
        assert attempt.held is not None
        self._close_output(attempt)
        if attempt.log is None:
            self._keep_end(attempt, attempt.held)
        else:
            self.roster.at(kernel.monotonic_ms() + _OUTPUT_AGAIN_MS, attempt, OUTPUT)

    def _keep_end(self, attempt: Attempt, update: AttemptUpdate) -> None:
        attempt.held = None
        attempt.update = update
        if not attempt.unrecorded:
            self.roster.journal.add(Ended(update, attempt.cleaned))
            self.roster.journal.flush()
        if attempt.over:
            self.roster.updates.append(update)

    def clean(self, attempt: Attempt) -> bool:
        """Take away what it left; False where a command is at it, whose end ``helped`` is told of."""
        plan = attempt.plan
        if attempt.started is not None:
            self.folders.give_back(plan.out)  # nothing was written there: no artifacts
        if plan.secrets:
            secrets.remove(plan.secrets)
        if plan.runtime == "process":
            self.folders.give_back(plan.directory)
        try:
            runtime = self.roster.runtime(plan.runtime)
            command = runtime.cleanup(plan)
            if command is None:
                return True
            pid = spawn(command[0] if "/" in command[0] else _which(command[0]), command, dict(os.environ),
                        self._null, 2)  # fmt: skip
        except StartFailed as error:
            sys.stderr.write(f"supervisor: clean-up of {attempt.id}: {error}\n")
            return True
        self.helpers[pid] = attempt
        return False

    def helped(self, pid: int) -> None:
        """A clean-up command has ended."""
        attempt = self.helpers.pop(pid)
        self._runtime_of(attempt).cleaned(attempt.plan)
        self.roster.leases.leave(attempt.plan)
        told = attempt.over
        attempt.cleaned = True
        if not attempt.unrecorded:
            self.roster.journal.add(Cleaned(attempt.id))
        if attempt.update is not None and not told:
            self.roster.updates.append(attempt.now())
        self.roster.drop_if_over(attempt)

    def _runtime_of(self, attempt: Attempt) -> Runtime:
        return self.roster.runtime(attempt.plan.runtime)


def tail(directory: str) -> bytes:
    """The end of what an attempt has printed, as ``verdict`` asks for it."""
    try:
        ends = [logs.read(directory, stream, -TAIL_BYTES, TAIL_BYTES).data for stream in ("stdout", "stderr")]
    except OSError:
        return b""
    return b"\n".join(ends)


def _readable(fd: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


def _which(name: str) -> str:
    return find_program(name, os.environ.get("PATH", DEFAULT_PATH))


def _peak_bytes(usage: Usage, found: Exit) -> int | None:
    """A vfork leaves the peak of the parent in the child's counter: what is not above ours says nothing."""
    if usage.peak_memory_bytes is not None or found.peak_kib is None:
        return usage.peak_memory_bytes
    ours_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found.peak_kib * 1024 if found.peak_kib > ours_kib else None


def _now_ms(attempt: Attempt) -> int:
    return kernel.wall_ms() if attempt.started is None else end_ms(attempt.started, time.monotonic_ns())


def end_ms(started: Started, monotonic_ns: int) -> int:
    """The end that is told (unix ms) lies as long after the start as it really did, whatever was done to the
    wall clock. It is rounded up: both times of the start are cut to whole ms, so an end that was cut too
    could lie before the last output."""
    now_ms = -(-monotonic_ns // 1_000_000)
    return started.at_ms + now_ms - started.monotonic_ms
