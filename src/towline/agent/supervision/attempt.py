"""One attempt as the supervisor knows it, rebuilt from the journal's records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from towline.agent.supervision.journal import (
    Accepted,
    Begun,
    Cleaned,
    Confirmed,
    Ended,
    Forgotten,
    Held,
    Record,
    Started,
    Stopping,
    Stray,
)
from towline.core.commands import AttemptUpdate
from towline.logs import MaskedWriter, Writer
from towline.model.states import AttemptState
from towline.runtime import secrets
from towline.runtime.port import Plan

if TYPE_CHECKING:
    from towline.agent.supervision.pipes import Slot

OUTPUT_WAITS = "it has ended, and the last of its output waits for room on the node's disk"


class Attempt:
    """``pid`` is the first process, or with ``starting`` the starter; 0 before the start.

    ``own`` says that the process is our child; else ``pidfd`` watches it. ``remark`` is
    what people have to be told at its end. ``held`` is its end where that is not told yet, since the last of
    its output waits for room on the disk.
    ``unrecorded``: it was refused, and the journal does not have it. It never began: where nobody remembers
    it, it may be ordered once more.
    """

    __slots__ = (
        "cleaned",
        "confirmed",
        "forgotten",
        "held",
        "id",
        "log",
        "own",
        "pid",
        "pidfd",
        "plan",
        "remark",
        "slot",
        "started",
        "starting",
        "stop",
        "unrecorded",
        "update",
    )

    def __init__(self, name: str, plan: Plan) -> None:
        self.id = name
        self.plan = plan
        self.pid = 0
        self.starting = False
        self.own = True
        self.pidfd = -1
        self.started: Started | None = None
        self.confirmed: Confirmed | None = None
        self.stop: Stopping | None = None
        self.held: AttemptUpdate | None = None
        self.update: AttemptUpdate | None = None
        self.cleaned = False
        self.forgotten = False
        self.unrecorded = False
        self.remark: str | None = None
        self.slot: Slot | None = None
        self.log: Writer | None = None

    def open_log(self, resume: bool = False) -> Writer:
        """Who keeps its output, which comes into the node's files by this way only. ``resume``: an earlier
        supervisor has begun.

        Raises OSError where its secrets could not be masked; with ``resume`` its output is dropped then.
        """
        plan = self.plan
        if not plan.secrets:
            return Writer(plan.logs, plan.max_log_bytes, resume)
        folder = secrets.output_folder(plan.secrets)
        values = partial(secrets.read, plan.secrets)
        try:
            return MaskedWriter(plan.logs, plan.max_log_bytes, folder, values, resume)
        except OSError:
            if not resume:
                raise
            return MaskedWriter(plan.logs, plan.max_log_bytes, folder, None, resume)

    @property
    def image_digest(self) -> str | None:
        """That of the image it runs in, as the agent has resolved it; None without an image."""
        digest = self.plan.runtime_data.get("image_digest")
        return digest if isinstance(digest, str) else None

    @property
    def running(self) -> bool:
        """Something of it was spawned, and its end is not known yet."""
        return self.pid != 0 and self.update is None and self.held is None

    @property
    def over(self) -> bool:
        """Its end may be told: that it is lost not before it is cleaned up, since it is then tried again,
        and a container whose starter was killed may be running."""
        return self.update is not None and (self.cleaned or self.update.state != AttemptState.LOST)

    def now(self) -> AttemptUpdate:
        """As the agent is told of it."""
        if self.update is not None and self.over:
            return self.update
        if self.started is None or self.starting:
            return AttemptUpdate(attempt=self.id, state=AttemptState.PREPARING)
        return AttemptUpdate(
            attempt=self.id,
            state=AttemptState.RUNNING,
            message=None if self.held is None else OUTPUT_WAITS,
            started_at=self.started.at_ms,
            image_digest=self.image_digest,
        )

    def records(self) -> Iterator[Record]:
        """What the journal must say for it to be rebuilt."""
        if self.unrecorded:
            return
        if self.update is not None:
            if not self.cleaned:
                yield Accepted(self.plan)
            yield Ended(self.update, self.cleaned)
            if self.forgotten:
                yield Forgotten((self.id,))
            return
        yield Accepted(self.plan)
        yield from (record for record in (self.started, self.confirmed, self.stop) if record is not None)
        if self.held is not None:
            yield Held(self.held, self.cleaned)


_NOTHING = Plan(
    attempt="", runtime="", argv=(), env={}, directory="", logs="", out="",
    timeout_ms=None, grace_ms=0, max_log_bytes=0,
)  # fmt: skip
"""Stands for the plan of an attempt that is over and cleaned: nothing asks for it any more."""


class Replay:
    """The journal's records played back: attempts in the order of their acceptance."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.attempts: dict[str, Attempt] = {}
        self.strays: dict[int, Stray] = {}
        self.turn = 0
        for record in records:
            self._apply(record)

    def _apply(self, record: Record) -> None:
        match record:
            case Begun():
                self.turn = record.turn
            case Accepted():
                self.attempts.setdefault(record.plan.attempt, Attempt(record.plan.attempt, record.plan))
            case Started():
                self.turn += 1
                self._started(record)
            case Stray():
                self.strays[record.pid] = record
            case Ended():
                self._ended(record)
            case Held():
                self._held(record)
            case Forgotten():
                for name in record.attempts:
                    self._forgotten(name)
            case Confirmed() | Stopping() | Cleaned():
                attempt = self.attempts.get(record.attempt)
                if attempt is not None:
                    self._later(attempt, record)

    def _started(self, record: Started) -> None:
        attempt = self.attempts.get(record.attempt)
        if attempt is not None:
            attempt.started = record
            attempt.pid = record.pid
            attempt.starting = record.starter

    def _later(self, attempt: Attempt, record: Confirmed | Stopping | Cleaned) -> None:
        match record:
            case Confirmed():
                attempt.confirmed = record
                attempt.pid = record.pid
                attempt.starting = False
                self.strays.pop(record.pid, None)
            case Stopping():
                attempt.stop = record
            case Cleaned():
                attempt.cleaned = True
                self._drop_if_over(attempt)

    def _held(self, record: Held) -> None:
        attempt = self.attempts.get(record.update.attempt)
        if attempt is not None:
            attempt.held = record.update
            attempt.cleaned = record.cleaned

    def _ended(self, record: Ended) -> None:
        name = record.update.attempt
        attempt = self.attempts.get(name)
        if attempt is None:
            attempt = self.attempts[name] = Attempt(name, _NOTHING)
            # its acceptance was left out of a rewritten journal: it is cleaned, or damaged
            attempt.cleaned = True
        attempt.update = record.update
        attempt.cleaned = attempt.cleaned or record.cleaned

    def _forgotten(self, name: str) -> None:
        attempt = self.attempts.get(name)
        if attempt is not None:
            attempt.forgotten = True
            self._drop_if_over(attempt)

    def _drop_if_over(self, attempt: Attempt) -> None:
        if attempt.forgotten and attempt.cleaned and attempt.update is not None:
            del self.attempts[attempt.id]
