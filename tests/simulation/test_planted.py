"""The simulator can fail: bugs that are planted here are each noticed within 200 seeds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from towline.coordination.storelease import Leases, StoreLease
from towline.core.leadership import NOBODY
from towline.core.lease import Silence
from towline.core.pool import Pool, machine, placing, reports
from towline.core.pool.repair import retrying
from towline.core.pool.scheduling import assigning
from towline.core.rows import Changes
from towline.server.leader import Leader
from towline.server.settings import Settings
from towline.simulation.faults import simulate, storing
from towline.simulation.faults.host import Host
from towline.simulation.faults.node import Agent
from towline.store.memory import MemoryStore

SEEDS = 200


def caught(store: type[MemoryStore] = MemoryStore, only: str = "", mode: str = "safety") -> int:
    """The first seed that notices what a test has broken; ``only``: in words that have this in them."""
    for seed in range(SEEDS):
        broken = simulate(seed, mode, store).broken
        if any(only in what for what in broken):
            return seed
    raise AssertionError(f"nobody has noticed it in {SEEDS} seeds")


# --- the eight that everything rests on -----------------------------------------------------------------
def test_a_missing_fence() -> None:
    class Unfenced(MemoryStore):
        async def commit(self, pool: str, term: int, commit_no: int, changes: Changes) -> None:
            row = self._pools[pool]
            await super().commit(pool, row.term, row.commit_no, changes)

    caught(store=Unfenced)


def test_a_renewal_of_whoever_has_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two guards stand here, either of which is enough: a lease that has run out is let go of before anybody
    asks to renew it, and the store renews it for its holder only. Both are taken away."""

    class Unscoped(MemoryStore):
        async def lease_renew(self, holder: str, pools: Sequence[str]) -> list[str]:
            held = [pool for pool in pools if pool in self._leases and self._leases[pool].holder != NOBODY]
            for pool in held:
                await super().lease_renew(self._leases[pool].holder, [pool])
            return held

    monkeypatch.setattr(Leases, "_watch", lambda _: asyncio.Event().wait())
    caught(store=Unscoped, only="answers a heartbeat")


def test_an_answer_before_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = Leader._commit

    async def hasty(self: Leader, batch: Any) -> None:
        batch.answer()
        await commit(self, batch)

    monkeypatch.setattr(Leader, "_commit", hasty)
    caught()


def test_a_stale_end_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
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
    caught()


def test_a_node_lease_that_counts_from_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = Agent.answered
    monkeypatch.setattr(
        Agent, "answered", lambda self, term, _: answered(self, term, self.host.clocks.boot_ms())
    )
    caught(only="runs twice under stop")


def test_a_node_that_does_not_heed_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "expire", lambda _: None)
    monkeypatch.setattr(Host, "cut", lambda _: None)
    caught(only="runs twice under stop")


def test_a_heartbeat_answered_after_the_leadership_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoreLease, "held", property(lambda self: bool(self.until_ms)))
    caught(only="answers a heartbeat")


def test_a_silence_from_before_the_takeover(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Pool.load

    def eager(*args: Any) -> Pool:
        pool = load(*args)
        for node in pool.state.nodes.values():
            node.heard_at -= 20_000
        return pool

    monkeypatch.setattr(Pool, "load", eager)
    caught(only="runs twice under stop")


# --- others -----------------------------------------------------------------------------------------------
def test_a_leader_that_waits_for_less_than_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "silence", property(lambda _: Silence(15_000, 15_000, leased=True)))
    caught(only="runs twice under stop")


def test_an_element_that_is_assigned_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first bug that a simulation has found: an index that stands in the heap twice."""

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
    caught()


def test_a_need_that_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    submit = machine.submission.submit

    def impatient(pool: Any, command: Any) -> None:
        submit(pool, command)
        for task in pool.jobs[command.job].tasks if command.job in pool.jobs else ():
            task.pending = 0
            pool.backlog.add(task)

    monkeypatch.setattr(machine.submission, "submit", impatient)
    caught()


def test_a_lost_node_that_is_never_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pool, "_look", lambda self: None)
    monkeypatch.setattr(machine.membership, "_reconcile", lambda *_: None)
    caught(mode="liveness")


def test_a_retry_from_an_old_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: what has happened to a job since its record was read is not asked. It matters where a job has
    ended, was run again by somebody else and has ended again meanwhile, so all records take their time."""
    monkeypatch.setattr(storing, "OLD_RECORD", 1.0)
    check = retrying.check

    def trusting(pool: Any, job: Any, record: Any) -> None:
        if job is not None:
            job.retried_at = 0
        pool.ended_jobs.pop(record.job.id, None)
        check(pool, job, record)

    monkeypatch.setattr(retrying, "check", trusting)
    caught()


def test_a_retry_that_takes_effect_twice() -> None:
    class Forgetful(MemoryStore):
        """Planted: nobody remembers under which keys something was run again."""

        async def record(self, pool: str, job: str, namespace: str, key: str | None) -> Any:
            return await super().record(pool, job, namespace, None)

    caught(store=Forgetful)
