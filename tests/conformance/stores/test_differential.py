"""Random commits give the same answers in every store as in the one that is only dictionaries."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import each, job_spec, task
from tests.conformance.stores import rows
from tests.conformance.stores.registry import STORES
from tests.conformance.stores.rows import Writing

from towline.core.commands import AttemptUpdate, Command, NodeUp, Report, StartOrder, Submit, Tick, attempt_id
from towline.core.pool import Pool
from towline.store.memory import MemoryStore
from towline.store.port import Store

JOBS = ("a1", "a2", "b")
STATES = ("queued", "active", "succeeded", "failed", "cancelled")
ATTEMPT_STATES = ("assigned", "preparing", "running", "finished", "lost")
_pool_numbers = itertools.count()

# PostgreSQL keeps no character 0 in a text; its own tests say what stands in its place.
texts = st.none() | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8)
ints = st.none() | st.integers(-(2**31), 2**31 - 1)
bigs = st.none() | st.integers(0, 2**63 - 1)


@st.composite
def row_lists(draw: st.DrawFn, prefix: str, first: bool) -> dict[str, list[Any]]:
    """The lists of one commit; keys are unique within it. The first one makes all jobs."""
    made: dict[str, dict[Any, Any]] = {name: {} for name in ("jobs", "elements", "ranges", "attempts")}
    for seq, job in enumerate(JOBS, 1):
        if first or draw(st.booleans()):
            made["jobs"][job] = rows.job(
                prefix + job, seq, namespace=prefix, pool=prefix, name=job[0],
                state=draw(st.sampled_from(STATES)), message=draw(texts), ended_at=draw(bigs),
                cancel_requested=draw(st.booleans()),
            )  # fmt: skip
    indexes = st.integers(0, 12)
    for _ in range(draw(st.integers(0, 12))):
        job, at, index = prefix + draw(st.sampled_from(JOBS)), draw(st.integers(0, 1)), draw(indexes)
        number, state = draw(st.integers(1, 3)), draw(st.sampled_from(STATES))
        made["elements"][job, at, index] = rows.element(
            job, index, state, at, number=number, message=draw(texts), not_before=draw(bigs)
        )
        number, state = draw(st.integers(1, 3)), draw(st.sampled_from(ATTEMPT_STATES))
        made["attempts"][job, at, index, number] = rows.attempt(
            job, index, number, state, at, signal=draw(ints), finished_at=draw(bigs), reason=draw(texts)
        )
        made["ranges"][job, at, index] = rows.ended_range(job, index, index + draw(indexes), at)
    return {name: list(by_key.values()) for name, by_key in made.items()}


async def facts(store: Store, pool: str, term: int, prefix: str) -> list[Any]:
    """Everything that can be read of the pool."""
    found: list[Any] = [await store.load(pool, term), await store.counters(pool), await store.nodes(pool)]
    found += [
        await store.jobs(prefix, before, 2, ())
        for before in (None, (3, ""), (2, prefix + "a2"), (2, prefix + "b"), (1, ""))
    ]
    found += [await store.jobs(prefix, None, 9, states) for states in (STATES[:2], STATES[2:])]
    found += [await store.find_jobs(prefix, prefix + argument) for argument in ("", "a", "a1", "c")]
    found += [await store.find_jobs(prefix, argument) for argument in ("a", "b", "c")]
    for job in (prefix + job for job in JOBS):
        found += [await store.job(job), await store.tasks(job), await store.first_failure(job)]
        found += [await store.elements(job, at, after, after + 5) for at in (0, 1) for after in (-1, 4)]
        found += [await store.attempt(job, 0, index, 1) for index in range(3)]
        found += [await store.events(pool, 0, 100, job)]
    return [*found, await store.events(pool, 2, 3)]


@pytest.fixture(params=[name for name in STORES if name != "memory"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[asyncio.Runner, list[Store]]]:
    """The store in memory and another one, and what runs their coroutines: hypothesis runs none itself."""
    with asyncio.Runner() as runner:
        stores: list[Store] = [MemoryStore(), STORES[request.param](tmp_path)]
        for store in stores:
            runner.run(store.open())
        yield runner, stores
        for store in stores:
            runner.run(store.close())


def test_random_commits_read_the_same(pair: tuple[asyncio.Runner, list[Store]]) -> None:
    runner, stores = pair

    @settings(max_examples=50)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        prefix = f"p{next(_pool_numbers)}-"  # every example in a pool and a namespace of its own
        writers = [runner.run(Writing.lead(store, prefix)) for store in stores]
        for commit in range(data.draw(st.integers(1, 4))):
            lists = data.draw(row_lists(prefix, commit == 0))
            if commit == 0:
                lists |= {"specs": [rows.spec(prefix + job) for job in JOBS]}
                lists |= {"tasks": [rows.task(prefix + job) for job in JOBS], "nodes": [rows.node(prefix)]}
            lists["events"] = [
                rows.event(commit * 10 + n, prefix + data.draw(st.sampled_from(JOBS)), text=data.draw(texts))
                for n in range(1, 4)
            ]
            for writer in writers:
                runner.run(writer.commit(**lists))
        expected, found = (runner.run(facts(w.store, prefix, w.term, prefix)) for w in writers)
        for one, other in zip(expected, found, strict=True):
            assert one == other

    check()


def test_what_a_pool_commits_it_loads_again(pair: tuple[asyncio.Runner, list[Store]]) -> None:
    """A history of the real machine: after every commit all stores load the same, and the pool that
    is made of it has the same tasks."""
    runner, stores = pair
    writers = [runner.run(Writing.lead(store, "default")) for store in stores]
    pool = Pool.load(runner.run(stores[0].load("default", writers[0].term))[0], 0)

    def batch(now_ms: int, *commands: Command) -> list[StartOrder]:
        for command in commands:
            pool.apply(command, now_ms)
        pool.schedule(now_ms)
        made, orders = pool.collect()
        loaded: list[Any] = []
        for writer in writers:
            runner.run(writer.store.commit("default", writer.term, writer.commit_no, made))
            writer.commit_no += 1
            loaded.append(runner.run(writer.store.load("default", writer.term)))
        assert all(other == loaded[0] for other in loaded)
        again = Pool.load(loaded[0][0], now_ms)
        assert task_rows(again) == task_rows(pool)
        return [order for order in orders if isinstance(order, StartOrder)]

    a, b = task(array=7, cpu=0.5, retries=1), task(needs=(each("a"),), array=7, cpu=0.5)
    spec = job_spec("j", a=a, b=b, c=task(needs="b"))
    started = batch(1, NodeUp(node=rows.node()), Submit(job="j1", namespace="default", spec=spec))
    for step in range(2, 40):
        finished = [
            AttemptUpdate(
                attempt=attempt_id((order.job, order.task, order.index, order.number)),
                state="finished",
                reason="exited",
                exit_code=int(order.index == 3),
            )
            for order in started
        ]
        started = batch(step * 5_000, Tick(), *(Report(node="n1", updates=(one,)) for one in finished))
    assert [(row.succeeded, row.failed, row.skipped) for row in runner.run(stores[1].tasks("j1"))] == [
        (6, 1, 0),
        (6, 0, 1),
        (0, 0, 1),
    ]


def task_rows(pool: Pool) -> list[Any]:
    return [each_task.row() for job in pool.state.jobs.values() for each_task in job.tasks]
