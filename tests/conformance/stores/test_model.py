"""All stores at once, driven by hypothesis against a model of a few dictionaries.

The model knows what a store promises and nothing of how: several leaders of one pool are held at the same
time, and what an older one commits is never seen.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.conformance.stores import rows
from tests.conformance.stores.registry import STORES

from towline.core.leadership import LeaseRow
from towline.core.rows import Changes, ElementRow, EventRow, JobRow, RangeRow
from towline.errors import StaleTerm
from towline.store.port import Reservation, Store

_numbers = itertools.count()
ENDED = ("succeeded", "failed", "cancelled")
STATES = ("queued", "active", *ENDED)
few = st.integers(0, 4)


class Model:
    """What is promised, of one pool."""

    def __init__(self) -> None:
        self.term = self.commit_no = self.event_no = self.job_seq = 0
        self.jobs: dict[str, JobRow] = {}
        self.elements: dict[tuple[str, int], ElementRow] = {}
        self.ranges: dict[tuple[str, int], RangeRow] = {}
        self.events: list[EventRow] = []
        self.keys: dict[str, Reservation] = {}
        self.seals: dict[str, tuple[bytes, int]] = {}
        self.lease = ("", 0)

    def commit(self, term: int, commit_no: int, changes: Changes) -> bool:
        if (term, commit_no) != (self.term, self.commit_no):
            return False
        self.commit_no += 1
        self.event_no, self.job_seq = changes.event_no, changes.job_seq
        self.jobs |= {row.id: row for row in changes.jobs}
        self.elements |= {(row.job, row.index): row for row in changes.elements}
        for job, _, lo in changes.ranges_gone:
            self.ranges.pop((job, lo), None)
        self.ranges |= {(row.job, row.lo): row for row in changes.ranges}
        self.events += changes.events
        return True

    @property
    def unfinished(self) -> list[JobRow]:
        return sorted((row for row in self.jobs.values() if row.ended_at is None), key=lambda row: row.seq)


class StoresAndModel(RuleBasedStateMachine):
    """One example: a pool, namespace and leases of its own in every store."""

    run: Callable[[Coroutine[Any, Any, Any]], Any]
    stores: dict[str, Store]

    def __init__(self) -> None:
        super().__init__()
        self.name = f"m{next(_numbers)}"
        self.model = Model()
        self.leaders: list[tuple[int, int]] = []

    def each(self, ask: Callable[[Store], Coroutine[Any, Any, Any]]) -> Any:
        """What every store answers, the same of all; StaleTerm is an answer too."""

        async def answer(store: Store) -> Any:
            try:
                return await ask(store)
            except StaleTerm:
                return StaleTerm

        async def answers() -> list[Any]:
            return list(await asyncio.gather(*map(answer, self.stores.values())))

        found = dict(zip(self.stores, self.run(answers()), strict=True))
        first = next(iter(found.values()))
        assert all(one == first for one in found.values()), found
        return first

    # --- leaders ------------------------------------------------------------------------------------
    @rule()
    def lead(self) -> None:
        self.model.term += 1
        assert self.each(lambda store: store.raise_term(self.name)) == self.model.term
        self.leaders.append((self.model.term, self.model.commit_no))

    @precondition(lambda self: self.leaders)
    @rule(data=st.data(), back=st.integers(0, 2))
    def commit(self, data: st.DataObject, back: int) -> None:
        """By the newest leader or one before it, of which each counts its own commits."""
        at = max(0, len(self.leaders) - 1 - back)
        term, commit_no = self.leaders[at]
        changes = data.draw(self.changes())
        landed = self.model.commit(term, commit_no, changes)
        answer = self.each(lambda store: store.commit(self.name, term, commit_no, changes))
        assert (answer is None) == landed
        if landed:
            self.leaders[at] = (term, commit_no + 1)

    @st.composite
    @staticmethod
    def _changes(draw: st.DrawFn, machine: StoresAndModel) -> Changes:
        model, prefix = machine.model, machine.name
        job = f"{prefix}-{draw(few)}"
        known = model.jobs.get(job)
        seq = known.seq if known else model.job_seq + 1
        ended_at = draw(st.sampled_from([None, None, 7]))
        elements = draw(st.dictionaries(few, st.sampled_from(STATES), max_size=4))
        cut = draw(st.lists(st.sampled_from(sorted(model.ranges) or [(job, 9)]), max_size=2, unique=True))
        ranges = draw(st.lists(st.integers(10, 13), max_size=2, unique=True))
        events = range(model.event_no + 1, model.event_no + 1 + draw(st.integers(0, 3)))
        made = rows.changes(
            jobs=[rows.job(job, seq, namespace=prefix, pool=prefix, ended_at=ended_at)],
            specs=[] if known else [rows.spec(job)],
            tasks=[] if known else [rows.task(job)],
            elements=[rows.element(job, index, state) for index, state in elements.items()],
            ranges=[rows.ended_range(job, lo, lo + 1) for lo in ranges],
            events=[rows.event(number, job) for number in events],
            event_no=events.stop - 1,
            job_seq=max(model.job_seq, seq),
        )
        made.ranges_gone = [(gone, 0, lo) for gone, lo in cut]
        return made

    def changes(self) -> st.SearchStrategy[Changes]:
        return self._changes(self)

    # --- what belongs to no leader -------------------------------------------------------------------
    @rule(key=few, job=few)
    def reserve(self, key: int, job: int) -> None:
        wanted = rows.reservation(f"k{key}", job=f"{self.name}-{job}", namespace=self.name)
        stands = self.model.keys.setdefault(wanted.key, wanted)
        assert self.each(lambda store: store.reserve([wanted])) == [stands]

    @rule(key=few)
    def release(self, key: int) -> None:
        self.model.keys.pop(f"k{key}", None)
        self.each(lambda store: store.release(self.name, f"k{key}"))

    @rule(name=few, data=st.binary(max_size=3))
    def seal(self, name: int, data: bytes) -> None:
        version = self.model.seals.get(f"s{name}", (b"", 0))[1] + 1
        self.model.seals[f"s{name}"] = (data, version)
        assert self.each(lambda s: s.seal_put(self.name, "secret", f"s{name}", data, None, 1)) == version

    @rule(name=few)
    def unseal(self, name: int) -> None:
        there = self.model.seals.pop(f"s{name}", None) is not None
        assert self.each(lambda store: store.seal_delete(self.name, "secret", f"s{name}")) == there

    @rule(holder=st.sampled_from(["a", "b", ""]), stale=st.booleans())
    def take_lease(self, holder: str, stale: bool) -> None:
        self.each(lambda store: store.pool_create(self.name))
        seen, renewals = self.model.lease
        expected = LeaseRow(self.name, seen, renewals - 1 if stale and renewals else renewals)
        fits = (expected.holder, expected.renewals) == self.model.lease
        if fits:
            self.model.lease = (holder, renewals + 1)
        assert self.each(lambda store: store.lease_take(expected, holder, 5)) == fits

    @rule(holder=st.sampled_from("ab"))
    def keep_lease(self, holder: str) -> None:
        seen, renewals = self.model.lease
        own = [self.name] if seen == holder else []
        if own:
            self.model.lease = (holder, renewals + 1)
        assert self.each(lambda store: store.lease_renew(holder, [self.name])) == own

    # --- what is read -------------------------------------------------------------------------------
    @invariant()
    def everything_reads_as_the_model_says(self) -> None:
        model, name = self.model, self.name
        assert self.each(lambda store: store.counters(name)) == (model.term, model.event_no)
        assert self.each(lambda store: store.events(name, 0, 1_000)) == model.events
        found = self.each(lambda store: store.load(name, model.term - 1))
        if model.term > 0:
            assert found is StaleTerm
        snapshot, damaged = self.each(lambda store: store.load(name, model.term))
        assert damaged == {}
        assert (snapshot.commit_no, snapshot.job_seq) == (model.commit_no, model.job_seq)
        assert snapshot.jobs == model.unfinished
        living = {row.id for row in model.unfinished}
        elements = [row for (job, _), row in sorted(model.elements.items()) if job in living]
        assert snapshot.elements == [row for row in elements if row.state not in ENDED]
        ended = {(job, at): state for job, _, state, lo, hi in snapshot.ended for at in range(lo, hi + 1)}
        assert ended == {(row.job, row.index): row.state for row in elements if row.state in ENDED}
        assert snapshot.ranges == [row for (job, _), row in sorted(model.ranges.items()) if job in living]
        kept = self.each(lambda store: store.seal_list(name))
        assert {row.name: (row.data, row.version) for row in kept} == model.seals


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[type[StoresAndModel]]:
    with asyncio.Runner() as runner:
        stores = {name: make(tmp_path) for name, make in STORES.items()}
        for store in stores.values():
            runner.run(store.open())

        class Driven(StoresAndModel):
            run = staticmethod(runner.run)

        Driven.stores = stores
        yield Driven
        for store in stores.values():
            runner.run(store.close())


def test_all_stores_do_what_the_model_says(machine: type[StoresAndModel]) -> None:
    few_examples = settings(
        max_examples=max(8, settings().max_examples // 10),
        stateful_step_count=20,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=few_examples)
