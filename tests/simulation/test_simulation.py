"""Seeded histories of a pool: they pass, they replay, and they catch bugs that are planted."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import Any

import pytest

from towline.core.commands import Report
from towline.core.lease import Silence
from towline.core.pool import Pool, machine, placing, reports
from towline.core.pool.repair import retrying
from towline.core.pool.scheduling import assigning
from towline.core.rows import Changes
from towline.errors import StoreError
from towline.simulation import Verdict, simulate
from towline.simulation.leader import SimLeader
from towline.simulation.node import SimNode
from towline.store.memory import MemoryStore

SEEDS = int(os.environ.get("TOWLINE_SIMULATION_SEEDS", "150"))


def run(seed: int, store: MemoryStore | None = None) -> Verdict:
    return asyncio.run(simulate(seed, store or MemoryStore()))


@pytest.mark.parametrize("first", range(0, SEEDS, 25))
def test_no_promise_is_broken(first: int) -> None:
    verdicts = [run(seed) for seed in range(first, first + 25)]
    broken = [str(verdict) for verdict in verdicts if verdict.broken]
    assert not broken, "\n".join(broken)
    assert sum(sum(verdict.faults.values()) for verdict in verdicts) > 25 * 20


def test_a_seed_is_a_history() -> None:
    assert run(7) == run(7)
    assert run(7) != run(8)


def caught(seeds: int = 200, store: type[MemoryStore] = MemoryStore, only: str = "") -> bool:
    """Whether one of the seeds notices what a test has broken; ``only``: in words that have this in them."""
    for seed in range(seeds):
        try:
            if any(only in fault for fault in run(seed, store()).broken):
                return True
        except (AssertionError, KeyError, StoreError):
            return True
    return False


class Unfenced(MemoryStore):
    """Planted: a deposed leader's commit lands."""

    async def commit(self, pool: str, term: int, commit_no: int, changes: Changes) -> None:
        row = self._pools[pool]
        await super().commit(pool, row.term, row.commit_no, changes)


def test_it_catches_a_missing_fence() -> None:
    assert caught(store=Unfenced)


def test_it_catches_an_answer_before_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    put = SimLeader.put

    def hasty(self: SimLeader, command: Any, answered: Any) -> None:
        if isinstance(command, Report):
            put(self, command, lambda _: None)
            answered(tuple(update.attempt for update in command.updates if update.state == "finished"))
        else:
            put(self, command, answered)

    monkeypatch.setattr(SimLeader, "put", hasty)
    assert caught()


def test_it_catches_a_stale_end_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = reports._apply

    def gullible(pool: Any, node: Any, update: Any) -> None:
        key = tuple(update.attempt.rsplit("-", 3))
        job = pool.jobs.get(key[0])
        if update.state == "finished" and job is not None:
            newest = job.tasks[int(key[1])].placed.get(int(key[2]))
            if newest is not None and newest.state == "active" and newest.number > int(key[3]):
                current = pool.attempts[(newest.job, newest.task, newest.index, newest.number)]
                reports.finish(pool, pool.nodes[current.node], job.tasks[newest.task], current, update)
                return
        apply(pool, node, update)

    monkeypatch.setattr(reports, "_apply", gullible)
    assert caught()


def test_it_catches_an_element_that_is_assigned_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first bug that this simulation found: an index that stands in the heap twice."""

    def twice(pool: Any, task: Any, node: Any, most: int, placed: str) -> int:
        count = assign(pool, task, node, most, placed)
        for index in list(task.placed)[:1]:
            element = task.placed[index]
            if element.state == "active" and element.number > 1:
                assigning._activate(pool, task, element)
                assigning._order(pool, task, node, [element], placed)
        return count

    assign = placing.assign
    monkeypatch.setattr(placing, "assign", twice)
    assert caught()


def test_it_catches_a_need_that_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    submit = machine.submission.submit

    def impatient(pool: Any, command: Any) -> None:
        submit(pool, command)
        for task in pool.jobs[command.job].tasks if command.job in pool.jobs else ():
            task.pending = 0
            pool.backlog.add(task)

    monkeypatch.setattr(machine.submission, "submit", impatient)
    assert caught()


def test_it_catches_a_lost_node_that_is_never_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pool, "_look", lambda self: None)
    monkeypatch.setattr(machine.membership, "_reconcile", lambda *_: None)
    assert caught()


def test_it_catches_a_leader_that_waits_for_less_than_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towline.simulation.leader.Silence", partial(Silence, lost_after_ms=15_000))
    assert caught(only="ms before an earlier one's end")


def test_it_catches_a_node_that_does_not_heed_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimNode, "_end_leased", lambda _: None)
    assert caught(only="ms before an earlier one's end")


def test_it_catches_a_retry_from_an_old_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: what has happened to a job since its record was read is not asked."""
    check = retrying.check

    def trusting(pool: Any, job: Any, record: Any) -> None:
        if job is not None:
            job.retried_at = 0
        pool.ended_jobs.pop(record.job.id, None)
        check(pool, job, record)

    monkeypatch.setattr(retrying, "check", trusting)
    assert caught()


def test_it_catches_a_retry_that_takes_effect_twice() -> None:
    class Forgetful(MemoryStore):
        """Planted: nobody remembers under which keys something was run again."""

        async def record(self, pool: str, job: str, namespace: str, key: str | None) -> Any:
            return await super().record(pool, job, namespace, None)

    assert caught(store=Forgetful)
