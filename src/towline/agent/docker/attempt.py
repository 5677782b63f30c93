"""One attempt of an Engine as the agent knows it, and how its end is told."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import datetime

from towline.agent.docker.client import Seen
from towline.agent.docker.records import Record
from towline.agent.supervision import kernel
from towline.agent.supervision.ending import tail
from towline.core.commands import AttemptUpdate
from towline.model.states import AttemptState, Reason
from towline.runtime.port import Usage
from towline.runtime.verdict import disk_full, verdict

_SHELLS_OFFSET = 128


class Attempt:
    """``resumed``: an earlier agent may have asked the Engine for something. ``pidfd``: of its first
    process, where that is one of this machine's."""

    __slots__ = ("gone", "kill", "pidfd", "record", "resumed", "task", "timeout")

    def __init__(self, record: Record, resumed: bool) -> None:
        self.record = record
        self.resumed = resumed
        self.task: asyncio.Task[None] | None = None
        self.kill: asyncio.TimerHandle | None = None
        self.timeout: asyncio.TimerHandle | None = None
        self.pidfd = -1
        self.gone = False
        """Its container is known to be over: signals are of no use."""

    @property
    def id(self) -> str:
        return self.record.plan.attempt

    @property
    def image_digest(self) -> str | None:
        digest = self.record.plan.runtime_data.get("image_digest")
        return digest if isinstance(digest, str) else None

    def now(self) -> AttemptUpdate:
        """As the machine is told of it."""
        record = self.record
        if record.update is not None:
            return record.update
        if record.started_ms is None:
            return AttemptUpdate(attempt=self.id, state=AttemptState.PREPARING)
        return AttemptUpdate(
            attempt=self.id,
            state=AttemptState.RUNNING,
            started_at=record.started_ms,
            image_digest=self.image_digest,
        )

    def quiet(self) -> None:
        """No timer of it is to go off any more."""
        for timer in (self.kill, self.timeout):
            if timer is not None:
                timer.cancel()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    # --- how it ended -------------------------------------------------------------------------------
    def failed(self, reason: str, message: str) -> AttemptUpdate:
        """It never ran."""
        if self.record.stop is not None:
            reason, message = self.record.stop, "It was stopped before it had started."
        return self._ended(reason=reason, message=message)

    def lost(self, message: str) -> AttemptUpdate:
        return self._ended(
            state=AttemptState.LOST, reason=Reason.SUPERVISION_LOST, message=message,
            started_at=self.record.started_ms,
        )  # fmt: skip

    def finished(self, seen: Seen, usage: Usage, last_output_ms: int) -> AttemptUpdate:
        """The Engine's container has ended, and its output is complete."""
        code, number = self._how(seen)
        usage.oom_killed = usage.oom_killed or seen.oom_killed or self._died_at_its_limit(seen, usage)
        reason, message = self._why(usage, code if code is not None else -(number or 0))
        return self._ended(
            reason=reason,
            message=message,
            exit_code=code,
            signal=number,
            started_at=self.record.started_ms,
            finished_at=max(self._finished_ms(seen), last_output_ms),
            peak_memory_bytes=usage.peak_memory_bytes,
            cpu_ms=usage.cpu_ms,
        )

    def _died_at_its_limit(self, seen: Seen, usage: Usage) -> bool:
        """Podman misses some on cgroup v1, where our own cgroup counts memory but no kills below it: who
        was killed with all of its memory in use was killed for that."""
        limit, peak = self.record.plan.memory_bytes, usage.peak_memory_bytes
        full = peak is not None and limit > 0 and peak >= limit - limit // 100
        return full and seen.exit_code == _SHELLS_OFFSET + signal.SIGKILL

    def _finished_ms(self, seen: Seen) -> int:
        """An Engine may hear of a short one's end before it has noted its start."""
        return max(unix_ms(seen.finished_at) or kernel.wall_ms(), self.record.started_ms or 0)

    def _why(self, usage: Usage, code: int) -> tuple[str, str | None]:
        """``code``: as of os.waitstatus_to_exitcode."""
        plan, stop = self.record.plan, self.record.stop
        if stop is not None:
            return stop, disk_full(plan) if stop == Reason.DISK_FULL else None
        return verdict(plan, usage, code, lambda: tail(plan.logs))

    def _how(self, seen: Seen) -> tuple[int | None, int | None]:
        """(exit code, signal). The kernel's own record is exact; an Engine says 128 + N both for a signal
        and for a shell's exit, so there only a SIGKILL that we or the kernel sent is taken for one."""
        status = kernel.exit_record(self.pidfd) if self.pidfd >= 0 else None
        if status is not None:
            code = os.waitstatus_to_exitcode(status)
            return (code, None) if code >= 0 else (None, -code)
        killed = self.record.stop is not None or seen.oom_killed
        if killed and seen.exit_code == _SHELLS_OFFSET + signal.SIGKILL:
            return None, int(signal.SIGKILL)
        return seen.exit_code, None

    def _ended(self, **fields: object) -> AttemptUpdate:
        given = {"state": AttemptState.FINISHED, "finished_at": kernel.wall_ms(), **fields}
        return AttemptUpdate(attempt=self.id, image_digest=self.image_digest, **given)  # type: ignore[arg-type]


def unix_ms(said: str) -> int | None:
    """Of a time as Engines write it, with up to nine digits of a second; None for no time."""
    if not said:
        return None
    whole, dot, rest = said.partition(".")
    digits = rest.rstrip("Z").partition("+")[0].partition("-")[0] if dot else ""
    zone = rest[len(digits) :] if dot else ""
    text = f"{whole}{zone}".replace("Z", "+00:00")
    try:
        seconds = datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
    return int(seconds) * 1000 + int((digits + "000")[:3])
