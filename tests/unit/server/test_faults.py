"""Jobs run through a leader whose commits fail at random, before and after they have landed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from tests.builders import task
from tests.unit.server.conftest import report, submit_command
from tests.unit.server.test_gateway import Agent, World, hello

from towline.core.commands import AttemptUpdate, attempt_id
from towline.core.rows import Changes
from towline.errors import StaleTerm, StoreError, Unavailable
from towline.model.job import TaskSpec
from towline.wire.messages import Ack, Report, Start

JOBS = 12


class FaultyWorld(World):
    """Its store fails one commit in five, in all ways that a store can fail."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder)
        self._random = random.Random(seed)
        self.failed = 0
        self._commit = self.store.commit
        self.store.commit = self._maybe  # type: ignore[method-assign]

    async def _maybe(self, pool: str, term: int, commit_no: int, changes: Changes) -> None:
        await asyncio.sleep(0)
        dice = self._random.random()
        self.failed += dice < 0.2
        if dice < 0.1:
            raise StoreError("not written")
        await self._commit(pool, term, commit_no, changes)
        if dice < 0.15:
            raise StoreError("written, and nobody knows")
        if dice < 0.2:
            raise StaleTerm("written, and then taken over")


class Node:
    """An agent that comes back after every break and remembers what it ran."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._journal: dict[str, AttemptUpdate] = {}
        self.ran: Counter[str] = Counter()

    async def run(self) -> None:
        while True:
            agent = Agent(self._world.gateway)
            agent.say(hello(known=tuple(self._journal.values())))
            try:
                await self._serve(agent)
            finally:
                agent.hang_up()
                await agent.serving

    async def _serve(self, agent: Agent) -> None:
        seq = 0
        while (message := await agent.next()) is not None:
            if isinstance(message, Start):
                keys = [(message.job, message.task, index, number) for index, number in message.elements]
                fresh = [key for key in keys if attempt_id(key) not in self._journal]
                self.ran.update(attempt_id(key) for key in fresh)
                updates = report(*fresh).updates
                self._journal.update({update.attempt: update for update in updates})
                seq += 1
                agent.say(Report(seq=seq, updates=updates))
            elif isinstance(message, Ack):
                for attempt in message.forget:
                    self._journal.pop(attempt, None)


async def submitted(world: World, job: str, **tasks: TaskSpec) -> None:
    while True:
        try:
            await world.leader.ask(submit_command(job, **tasks))
            return
        except Unavailable:
            if await world.store.job(job) is not None:
                return
            await world.leader.ready.wait()


async def ended(world: World, job: str) -> str:
    while True:
        found = await world.store.job(job)
        if found is not None and found[0].ended_at is not None:
            return found[0].state
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("seed", range(5))
async def test_every_job_ends_once_and_nothing_runs_twice(tmp_path: Path, seed: int) -> None:
    world = FaultyWorld(tmp_path, seed)
    await world.store.open()
    leading = asyncio.create_task(world.leader.run())
    await world.leader.ready.wait()
    node = Node(world)
    living = asyncio.create_task(node.run())
    tasks = {"a": task(array=5), "b": task(needs="a"), "c": task(needs="b", array=3)}
    names = [f"j{number}" for number in range(JOBS)]
    async with asyncio.timeout(60):
        await asyncio.gather(*(submitted(world, name, **tasks) for name in names))
        states = await asyncio.gather(*(ended(world, name) for name in names))
    assert states == ["succeeded"] * JOBS
    assert world.failed > 0
    assert set(node.ran.values()) == {1}
    assert len(node.ran) == JOBS * 9
    events = await world.store.events("default", 0, 10_000)
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    kinds = Counter(event.kind for event in events)
    assert kinds["job.submitted"] == kinds["job.ended"] == JOBS
    assert kinds["attempt.finished"] == JOBS * 9
    living.cancel()
    await asyncio.wait([living])
    world.leader.end()
    await leading
