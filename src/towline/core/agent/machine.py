"""The agent's machine: an event in, effects out. It decides what a node does about each attempt.

Plain synchronous code without clock or I/O, like the pool's. What it knows of an attempt has three
sources, and none is ever contradicted by another:

    the leader orders   Start: preparing, then handed to the supervisor; Stop
    the supervisor      says what its journal has, then what changes: watched, until it ended
    the leader's Ack    names what it has on record as ended: forgotten here and in the journal

The machine itself keeps nothing on disk. If the agent dies, the supervisor's journal brings back what
was handed over; what was still preparing is not known to the next agent, so the leader orders it
again, and the journal refuses to start anything twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum

from msgspec import Struct

from towline.core.agent import effects as out
from towline.core.agent import events as on
from towline.core.agent.outbox import Outbox
from towline.core.commands import AttemptUpdate, attempt_id
from towline.model.states import AttemptState, Reason

_ENDED = (AttemptState.FINISHED, AttemptState.LOST)
_NEVER_STARTED = "It was stopped before it started."
_VANISHED = "The supervisor was started again and its journal does not have this attempt any more."


class Phase(IntEnum):
    PREPARING = 0  # its plan is being made
    PLANNED = 1  # it has a plan, and no supervisor was there to take it
    HANDED = 2  # the plan was sent; the supervisor's next word shows whether it arrived
    WATCHED = 3  # the supervisor knows it
    ENDED = 4


class _Attempt(Struct):
    update: AttemptUpdate
    phase: Phase
    journaled: bool = False
    """The supervisor's journal has it or may have it, so it must be told to forget it."""
    plan: object = None
    stop: tuple[str, int] | None = None
    """The wish to stop it: reason and grace in ms."""


class AgentMachine:
    """``handle`` is the one entrance. ``now_ms`` is wall-clock time in ms since 1970."""

    def __init__(self) -> None:
        self.term = 0
        self.instance: str | None = None
        self._linked = False
        self._supervised = False
        self._attempts: dict[str, _Attempt] = {}
        self._outbox = Outbox()

    @property
    def wants_flush(self) -> bool:
        return self._linked and bool(self._outbox)

    @property
    def attempt_count(self) -> int:
        """Attempts that are not forgotten yet, ended ones included."""
        return len(self._attempts)

    @property
    def unacknowledged(self) -> set[str]:
        """Attempts of which the server may not have heard how they stand."""
        return self._outbox.names

    @property
    def busy(self) -> bool:
        """Whether any attempt is here that has not ended."""
        return any(attempt.phase is not Phase.ENDED for attempt in self._attempts.values())

    def is_live(self, name: str) -> bool:
        """Whether the attempt is here and has not ended."""
        attempt = self._attempts.get(name)
        return attempt is not None and attempt.phase is not Phase.ENDED

    def known(self) -> tuple[AttemptUpdate, ...]:
        """Every attempt that is not forgotten, as it stands."""
        return tuple([attempt.update for attempt in self._attempts.values()])

    def attempts(self) -> list[tuple[AttemptUpdate, object]]:
        """Every attempt of the node that is not forgotten, with its plan until the supervisor has it."""
        return [(attempt.update, attempt.plan) for attempt in self._attempts.values()]

    def handle(self, event: on.Event, now_ms: int) -> list[out.Effect]:
        match event:
            case on.Changed():
                return self._changed(event.updates)
            case on.Flush():
                return self._flush(now_ms)
            case on.Acked():
                return self._acked(event)
            case on.Start():
                return self._start(event)
            case on.Prepared():
                return self._prepared(event.plans)
            case on.Stop():
                return self._stop(event, now_ms)
            case on.PrepareFailed():
                return self._prepare_failed(event, now_ms)
            case on.Declined() | on.Slow():
                return self._declined_or_slow(event)
            case on.SupervisorUp():
                return self._supervisor_up(event, now_ms)
            case on.SupervisorDown():
                self._supervised = False
                return []
            case on.LinkOpened() | on.Welcomed() | on.LinkClosed():
                return self._link(event)
            case on.Tick():
                return self._repeat(now_ms)

    # --- the link ---------------------------------------------------------------------------------
    def _link(self, event: on.LinkOpened | on.Welcomed | on.LinkClosed) -> list[out.Effect]:
        """A new link knows nothing of the old one's reports: Hello says how all stands now, and what
        was not acknowledged is reported again."""
        if isinstance(event, on.Welcomed):
            if refused := self._refuse(event.term, "the server that answered"):
                return refused
            self._linked = True
            return []
        self._linked = False
        self._report_again(self._outbox.take_all())
        if isinstance(event, on.LinkClosed):
            return []
        if self.instance is None:
            raise AssertionError("a link was opened before the supervisor's journal was read")
        return [out.SendHello(self.instance, self.known())]

    def _refuse(self, term: int, who: str) -> list[out.Effect]:
        """A leader of a lower term than one heard before has been replaced, and may not know it."""
        if term < self.term:
            return [out.DropLink(f"{who} leads with term {term}, and this node has seen term {self.term}")]
        self.term = term
        return []

    def _acked(self, event: on.Acked) -> list[out.Effect]:
        if refused := self._refuse(event.term, "the server that acknowledged"):
            return refused
        self._outbox.acked(event.seq)
        journaled: list[str] = []
        for name in event.forget:
            attempt = self._attempts.get(name)
            if attempt is None or attempt.phase is not Phase.ENDED:
                continue  # what runs is watched until its end, whoever has lost interest in it
            self._drop(name)
            if attempt.journaled:
                journaled.append(name)
        # While the supervisor is away nothing is noted: its next snapshot names them, and they are
        # reported and forgotten once more.
        return [out.Forget(tuple(journaled))] if journaled and self._supervised else []

    def _drop(self, name: str) -> None:
        del self._attempts[name]
        self._outbox.discard(name)

    def _flush(self, now_ms: int) -> list[out.Effect]:
        if not self.wants_flush:
            return []
        seq, names = self._outbox.send(now_ms)
        attempts = self._attempts
        return [out.SendReport(seq, tuple([attempts[name].update for name in names]))]

    def _report_again(self, names: Iterable[str]) -> None:
        self._outbox.add_all([name for name in names if name in self._attempts])

    def _repeat(self, now_ms: int) -> list[out.Effect]:
        """A leader that threw its memory away may have kept the link and lost what was said on it."""
        if not self._linked:
            return []
        late = self._outbox.take_late(now_ms)
        self._report_again(late)
        return self._flush(now_ms) if late else []

    # --- orders -----------------------------------------------------------------------------------
    def _start(self, event: on.Start) -> list[out.Effect]:
        if refused := self._refuse(event.term, "the server that ordered a start"):
            return refused
        fresh: list[tuple[str, int, int]] = []
        devices: dict[str, str] = {}
        for at, (index, number) in enumerate(event.elements):
            name = attempt_id((event.job, event.task, index, number))
            if name in self._attempts:  # ordered twice: say again how it stands
                self._outbox.add(name)
                continue
            update = AttemptUpdate(attempt=name, state=AttemptState.PREPARING.value)
            self._attempts[name] = _Attempt(update, Phase.PREPARING)
            fresh.append((name, index, number))
            given = event.devices[at] if event.devices else None
            if given is not None:
                devices[name] = given
        return [out.Prepare(event.job, event.task, fresh, devices)] if fresh else []

    def _stop(self, event: on.Stop, now_ms: int) -> list[out.Effect]:
        if refused := self._refuse(event.term, "the server that ordered a stop"):
            return refused
        name = event.attempt
        attempt = self._attempts.get(name)
        if attempt is None:  # never received, or forgotten: either way it does not run here
            update = AttemptUpdate(attempt=name, state=AttemptState.PREPARING.value)
            attempt = self._attempts[name] = _Attempt(update, Phase.PLANNED)
        if attempt.phase is Phase.ENDED:
            self._outbox.add(name)
            return []
        if attempt.phase in (Phase.HANDED, Phase.WATCHED):
            return self._wish_stop(attempt, event)
        preparing = attempt.phase is Phase.PREPARING
        self._end(attempt, event.reason, _NEVER_STARTED, now_ms)
        return [out.CancelPrepare(name)] if preparing else []

    def _wish_stop(self, attempt: _Attempt, event: on.Stop) -> list[out.Effect]:
        if attempt.stop is not None and attempt.stop[1] <= event.grace_ms:
            return []  # the same order again, as every new link brings it
        attempt.stop = (event.reason, event.grace_ms)
        return [out.StopAttempt(event.attempt, event.reason, event.grace_ms)] if self._supervised else []

    def _end(
        self, attempt: _Attempt, reason: str, message: str, now_ms: int, state: str = AttemptState.FINISHED
    ) -> None:
        """The agent's own knowledge that it does not run and never will."""
        name = attempt.update.attempt
        attempt.update = AttemptUpdate(
            attempt=name,
            state=str(state),
            reason=reason,
            message=message,
            started_at=attempt.update.started_at,
            finished_at=now_ms,
        )
        attempt.phase = Phase.ENDED
        attempt.plan = None
        self._outbox.add(name)

    # --- preparation ------------------------------------------------------------------------------
    def _prepared(self, plans: Sequence[tuple[str, object]]) -> list[out.Effect]:
        run: list[object] = []
        for name, plan in plans:
            attempt = self._attempts.get(name)
            if attempt is None or attempt.phase is not Phase.PREPARING:
                continue  # stopped meanwhile
            attempt.plan = plan
            attempt.phase = Phase.PLANNED
            if self._supervised:
                run.append(self._hand_over(attempt))
        return [out.RunPlans(run)] if run else []

    def _hand_over(self, attempt: _Attempt) -> object:
        """The plan is kept until the supervisor has spoken of the attempt: it may have to go again."""
        attempt.phase = Phase.HANDED
        attempt.journaled = True
        return attempt.plan

    def _prepare_failed(self, event: on.PrepareFailed, now_ms: int) -> list[out.Effect]:
        for name in event.attempts:
            attempt = self._attempts.get(name)
            if attempt is not None and attempt.phase is Phase.PREPARING:
                self._end(attempt, event.reason, event.message, now_ms)
        return []

    def _declined_or_slow(self, event: on.Declined | on.Slow) -> list[out.Effect]:
        for name in event.attempts:
            attempt = self._attempts.get(name)
            if attempt is None or attempt.phase is not Phase.PREPARING:
                continue
            if isinstance(event, on.Declined):
                self._drop(name)
            else:
                self._outbox.add(name)
        return []

    # --- the supervisor ---------------------------------------------------------------------------
    def _changed(self, updates: Iterable[AttemptUpdate]) -> list[out.Effect]:
        attempts = self._attempts
        effects: list[out.Effect] = []
        for update in updates:
            name = update.attempt
            attempt = attempts.get(name)
            phase = Phase.ENDED if update.state in _ENDED else Phase.WATCHED
            if attempt is None:
                attempts[name] = _Attempt(update, phase, journaled=True)
            elif attempt.phase is Phase.ENDED:
                attempt.journaled = True
                if phase is Phase.WATCHED:  # its end has been told: it must not go on
                    effects.append(out.StopAttempt(name, attempt.update.reason or Reason.CANCELLED.value, 0))
                continue
            else:
                attempt.update = update
                attempt.phase = phase
                attempt.plan = None
                attempt.journaled = True  # also where an earlier agent has handed it over
            self._outbox.add(name)
        return effects

    def _supervisor_up(self, event: on.SupervisorUp, now_ms: int) -> list[out.Effect]:
        effects: list[out.Effect] = []
        if self.instance not in (None, event.instance):
            effects.append(self._journal_replaced())
        self.instance = event.instance
        self._supervised = True
        effects += self._changed(self._news(event.known))
        known = {update.attempt for update in event.known}
        plans: list[object] = []
        for name, attempt in self._attempts.items():
            attempt.journaled = attempt.journaled and name in known
            if attempt.phase is Phase.WATCHED and name not in known:
                self._end(attempt, Reason.SUPERVISION_LOST.value, _VANISHED, now_ms, AttemptState.LOST)
            elif attempt.phase is Phase.WATCHED and attempt.stop is not None:
                effects.append(out.StopAttempt(name, *attempt.stop))
            elif attempt.phase is Phase.HANDED and attempt.stop is not None:
                self._end(attempt, attempt.stop[0], _NEVER_STARTED, now_ms)
            elif attempt.phase in (Phase.PLANNED, Phase.HANDED):
                plans.append(self._hand_over(attempt))
        return [*effects, out.RunPlans(plans)] if plans else effects

    def _news(self, known: Iterable[AttemptUpdate]) -> list[AttemptUpdate]:
        """What differs from what is known here, so that a new supervisor does not cause reports of
        what everybody knows."""
        attempts = self._attempts
        return [
            update
            for update in known
            if (attempt := attempts.get(update.attempt)) is None
            or attempt.phase is not Phase.WATCHED
            or attempt.update != update
        ]

    def _journal_replaced(self) -> out.Effect:
        """Another journal: nobody knows what became of that which the old one watched. The server
        hears the new name in Hello, and counts it lost; endings that were seen stay true."""
        gone = [n for n, a in self._attempts.items() if a.phase in (Phase.HANDED, Phase.WATCHED)]
        for name in gone:
            self._drop(name)
        return out.DropLink("the node's journal is another one than before")
