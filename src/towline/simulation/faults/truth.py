"""What really happened in a history: which container ran when and where, and what was committed in which
order.

Written by hosts, by the store and by clients, never by a pool. What can be told at once is checked at once:
each method is about one step, costs little, and names the promise that the step breaks."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import TypeVar

from towline.core.commands import AttemptKey, attempt_id, attempt_key
from towline.core.rows import AttemptRow, Changes, ElementRow, EventRow
from towline.model.job import JobSpec
from towline.model.states import AttemptState, ElementState, Reason
from towline.simulation.faults.world import MS, SECOND, World

ENDED = (
    ElementState.SUCCEEDED.value,
    ElementState.FAILED.value,
    ElementState.CANCELLED.value,
    ElementState.SKIPPED.value,
)
LIVE = (AttemptState.ASSIGNED.value, AttemptState.PREPARING.value, AttemptState.RUNNING.value)
SLACK_US = 150 * MS
"""What clocks may drift apart while a leadership lease runs, and then some."""
ElementKey = tuple[str, int, int]
R = TypeVar("R")


@dataclass(slots=True)
class Life:
    """A container. ``code`` is None where a signal or the machine has ended it."""

    node: str
    began_us: int
    ended_us: int | None = None
    code: int | None = None


class Truth:
    """``commits`` counts those that landed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lives: dict[str, Life] = {}
        self.specs: dict[str, JobSpec] = {}
        self.accepted: dict[str, str] = {}
        """Jobs whose submission was answered, with its idempotency key."""
        self.commits = 0
        self._live: dict[ElementKey, dict[str, None]] = {}
        self._jobs: dict[str, str] = {}
        """By idempotency key."""
        self._terms: dict[str, int] = {}
        self._leads: dict[str, tuple[int, int]] = {}
        """By pool: the highest term in which anybody has loaded it, and when."""
        self._event_no: dict[str, int] = {}
        self._elements: dict[ElementKey, ElementRow] = {}
        self._attempts: dict[AttemptKey, AttemptRow] = {}

    def spec_of(self, attempt: str) -> tuple[str, str]:
        """(on_disconnect, the element's name) of an attempt."""
        job, task, index, _ = attempt_key(attempt)
        name, spec = list(self.specs[job].tasks.items())[task]
        return spec.on_disconnect, f"{job}/{name}.{index}"

    # --- containers -----------------------------------------------------------------------------------
    def started(self, node: str, attempt: str) -> None:
        world, key = self.world, attempt_key(attempt)
        world.tell(node, f"container of {attempt} starts")
        if key not in self._attempts:
            world.breach(f"{attempt} was started and is not in the store")
            return
        if attempt in self.lives:
            world.breach(f"{attempt} was started twice")
        policy, name = self.spec_of(attempt)
        live = self._live.setdefault(key[:3], {})
        if live and policy == "stop":
            world.breach(f"{name} runs twice under stop: attempt {key[3]} beside {', '.join(live)}")
        live[attempt] = None
        self.lives[attempt] = Life(node, world.now_us)

    def ended(self, attempt: str, code: int | None) -> None:
        self.world.tell(self.lives[attempt].node, f"container of {attempt} ends with {code}")
        self._end(attempt, code)

    def killed(self, attempt: str) -> None:
        self._end(attempt, None)

    def _end(self, attempt: str, code: int | None) -> None:
        life = self.lives[attempt]
        life.ended_us, life.code = self.world.now_us, code
        self._live[attempt_key(attempt)[:3]].pop(attempt, None)

    @property
    def starts(self) -> int:
        return len(self.lives)

    # --- what is told to whom -------------------------------------------------------------------------
    def answered(self, key: str, job: str) -> None:
        """A client hears that its submission under this key is that job."""
        if job not in self.specs:
            self.world.breach(f"{job} was accepted and is not in the store")
        if self._jobs.setdefault(key, job) != job:
            self.world.breach(f"the key {key} was first {self._jobs[key]} and then {job}")
        self.accepted[job] = key

    def forgotten(self, node: str, attempts: tuple[str, ...]) -> None:
        """A node is told that it may forget how these ended."""
        for attempt in attempts:
            row = self._attempts.get(attempt_key(attempt))
            if row is not None and row.node == node and row.state in LIVE:
                self.world.breach(f"{node} may forget {attempt}, whose end is not in the store: {row.state}")

    def heartbeat_answered(self, server: str, pool: str, term: int) -> None:
        newest, since_us = self._leads.get(pool, (0, 0))
        late_us = self.world.now_us - since_us
        if term < newest and late_us > SLACK_US:
            self.world.breach(
                f"{server} answers a heartbeat in term {term} of {pool}, "
                f"{late_us / SECOND:.3f} s after another leader has loaded it in term {newest}"
            )

    # --- the store ------------------------------------------------------------------------------------
    def raised(self, pool: str, term: int) -> None:
        if term <= self._terms.get(pool, 0):
            self.world.breach(f"the term of {pool} went from {self._terms[pool]} to {term}")
        self._terms[pool] = term

    def loaded(self, pool: str, term: int) -> None:
        if term > self._leads.get(pool, (0, 0))[0]:
            self._leads[pool] = term, self.world.now_us

    def committed(self, pool: str, term: int, changes: Changes) -> None:
        self.commits += 1
        for what in self._wrong(pool, term, changes):
            self.world.breach(what)
        self._event_no[pool] = changes.event_no
        self.specs.update((row.job, row.spec) for row in changes.specs)

    def _wrong(self, pool: str, term: int, changes: Changes) -> Iterator[str]:
        if term != self._terms.get(pool, 0):
            yield f"a commit of term {term} of {pool} has landed in term {self._terms.get(pool, 0)}"
        first = self._event_no.get(pool, 0) + 1
        numbers = [event.number for event in changes.events]
        if numbers != list(range(first, changes.event_no + 1)):
            yield f"the events of {pool} go on with {numbers[:1]} to {changes.event_no} after {first - 1}"
        again = _again(changes.events)
        for row in changes.attempts:
            yield from self._wrong_attempt(row)
        for row in changes.elements:
            yield from self._wrong_element(row, again)

    def _wrong_attempt(self, row: AttemptRow) -> Iterator[str]:
        key = (row.job, row.task, row.index, row.number)
        before = self._attempts.get(key)
        self._attempts[key] = _kept(row)
        if before is not None and before.state == AttemptState.FINISHED and row.state != before.state:
            yield f"{attempt_id(key)} had finished and is {row.state}"
        if row.state == AttemptState.FINISHED and row.reason == Reason.EXITED:
            life = self.lives.get(attempt_id(key))
            if life is None or life.ended_us is None or life.code != row.exit_code:
                yield f"{attempt_id(key)} ended with {row.exit_code} by the store, really: {life}"

    def _wrong_element(self, row: ElementRow, again: set[tuple[str, int]]) -> Iterator[str]:
        key = (row.job, row.task, row.index)
        before = self._elements.get(key)
        self._elements[key] = _kept(row)
        name = attempt_id((*key, row.number))
        if before is not None and row.number < before.number:
            yield f"{name}: the attempt's number fell from {before.number}"
        ended_before = before is not None and before.state in ENDED
        changed = before is not None and (before.state, before.number) != (row.state, row.number)
        had = None if before is None else before.state
        may_change = (row.job, row.index) in again and had != ElementState.SUCCEEDED
        if ended_before and changed and not may_change:
            yield f"{name} had {had} and is {row.state}"
        if row.state == ElementState.SUCCEEDED and not ended_before:
            life = self.lives.get(name)
            if life is None or life.ended_us is None or life.code != 0:
                yield f"{name} succeeded by the store, really its newest attempt is {life}"
        if row.state == ElementState.FAILED and row.reason == Reason.EXITED and not ended_before:
            life = self.lives.get(name)
            if life is None or life.ended_us is None or not life.code:
                yield f"{name} failed by the store, really its newest attempt is {life}"


def _kept(row: R) -> R:
    """Its owner goes on changing it."""
    return copy(row)


def _again(events: list[EventRow]) -> set[tuple[str, int]]:
    """(job, index) of what a commit says runs again."""
    found: set[tuple[str, int]] = set()
    for event in events:
        if event.kind == "elements.retried" and event.job is not None:
            found.update((event.job, at) for lo, hi in event.data["ranges"] for at in range(lo, hi + 1))
    return found
