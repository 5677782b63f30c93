"""Two leaders held at once against one store: the older term never commits anything."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing

from towline.errors import StaleTerm
from towline.store.port import Store


@pytest.mark.parametrize("seed", range(4))
async def test_leaders_that_all_commit_at_once(store: Store, seed: int) -> None:
    """Each writes its own term into every event; in the end events are in order of the terms, and every
    commit that was acknowledged is there, once."""
    chosen = random.Random(seed)
    acknowledged: list[tuple[int, int]] = []
    stale: list[int] = []

    async def lead(turns: int) -> None:
        try:
            leader = await Writing.lead(store, "default")
        except StaleTerm:  # another one led before this one had loaded
            return
        _, leader.event_no = await store.counters("default")
        for turn in range(turns):
            try:
                await leader.commit(
                    events=[rows.event(leader.event_no + 1, term=leader.term, turn=turn)],
                    elements=[rows.element("j1", leader.term, message=str(turn))],
                )
            except StaleTerm:
                stale.append(leader.term)
                return
            acknowledged.append((leader.term, turn))
            for _ in range(chosen.randrange(3)):
                await asyncio.sleep(0)

    first = await Writing.lead(store, "default")
    await first.submit("j1", 1)
    await asyncio.gather(*(lead(chosen.randrange(5, 40)) for _ in range(6)))
    events = await store.events("default", 0, 1_000)
    assert [(row.data["term"], row.data["turn"]) for row in events] == sorted(acknowledged)
    assert [row.number for row in events] == list(range(1, len(events) + 1))
    with pytest.raises(StaleTerm):
        await first.commit(nodes=[rows.node("late")])
    assert await store.nodes("default") == []
    assert stale or acknowledged


async def test_an_old_leader_is_refused_while_the_new_one_commits(store: Store) -> None:
    old = await Writing.lead(store, "default")
    await old.submit("j1", 1)
    new = await Writing.lead(store, "default")
    outcomes = await asyncio.gather(
        old.commit(jobs=[rows.job("j1", 1, state="failed", ended_at=1)]),
        new.commit(elements=[rows.element("j1", 0)]),
        old.commit(nodes=[rows.node("n1")], queues=[rows.queue("q")]),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [StaleTerm, type(None), StaleTerm]
    snapshot, _ = await store.load("default", new.term)
    assert (snapshot.commit_no, snapshot.nodes, snapshot.queues) == (2, [], [])
    assert [row.state for row in snapshot.jobs] == ["running"]
