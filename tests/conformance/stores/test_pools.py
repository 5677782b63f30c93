"""Several pools in one store: each sees what is its own, and a node is of one of them."""

from __future__ import annotations

import msgspec
import pytest
from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing

from towline.core.pool.draining import FORGOTTEN
from towline.errors import StaleTerm
from towline.store.port import Store


@pytest.fixture
async def pools(store: Store) -> tuple[Writing, Writing]:
    """Leaders of two pools in one store."""
    return await Writing.lead(store, "east"), await Writing.lead(store, "west")


async def ids_loaded(leader: Writing) -> list[str]:
    snapshot, damaged = await leader.store.load(leader.pool, leader.term)
    assert damaged == {}
    return [row.id for row in snapshot.jobs]


async def test_each_pool_loads_its_own(pools: tuple[Writing, Writing]) -> None:
    east, west = pools
    for leader, job, node in ((east, "j1", "n1"), (west, "j2", "n2")):
        await leader.submit(job, 1)
        await leader.commit(
            nodes=[rows.node(node)],
            queues=[rows.queue("team", weight_milli=len(leader.pool) + ord(node[-1]))],
            elements=[rows.element(job, 0), rows.element(job, 1, "succeeded")],
            attempts=[rows.attempt(job, 0, node=node)],
            events=[rows.event(1, job), rows.event(2, job)],
        )
    for leader, job, node in ((east, "j1", "n1"), (west, "j2", "n2")):
        snapshot, _ = await leader.store.load(leader.pool, leader.term)
        assert [row.pool for row in snapshot.jobs] == [leader.pool]
        below = (snapshot.specs, snapshot.tasks, snapshot.elements, snapshot.attempts)
        assert {row.job for found in below for row in found} == {job}
        assert snapshot.ended == [(job, 0, "succeeded", 1, 1)]
        assert [row.id for row in snapshot.nodes] == [node]
        assert [row.weight_milli for row in snapshot.queues] == [len(leader.pool) + ord(node[-1])]
        assert [row.job for row in await leader.store.events(leader.pool, 0, 9)] == [job, job]
    await west.commit(queues_gone=["team"])
    snapshot, _ = await east.store.load("east", east.term)
    assert [row.name for row in snapshot.queues] == ["team"]


async def test_a_term_and_a_commit_are_one_pools_own(store: Store, pools: tuple[Writing, Writing]) -> None:
    east, west = pools
    await east.submit("j1", 1)
    successor = await Writing.lead(store, "east")
    await west.submit("j2", 1)
    await successor.submit("j3", 2)
    with pytest.raises(StaleTerm):
        await east.submit("j4", 3)
    assert await ids_loaded(successor) == ["j1", "j3"]
    assert await ids_loaded(west) == ["j2"]
    assert await store.counters("west") == (1, 0)


async def test_jobs_of_all_pools_are_listed_in_one_order(
    store: Store, pools: tuple[Writing, Writing]
) -> None:
    east, west = pools
    for seq in range(1, 7):  # pairs of one seq, as two pools may give in the same moment
        state = "failed" if seq % 2 else "running"
        await (east if seq % 2 else west).submit(f"b{7 - seq}", seq, state=state)
        await (west if seq % 2 else east).submit(f"a{seq}", seq, name="other", state=state)
    newest_first = [name for seq in range(6, 0, -1) for name in (f"b{7 - seq}", f"a{seq}")]
    assert [row.id for row in await store.jobs("default", None, 99)] == newest_first
    for states in ([], ["failed", "running"]):
        for limit in (1, 2, 3, 5):
            seen: list[str] = []
            before: tuple[int, str] | None = None
            while page := await store.jobs("default", before, limit, states):
                seen += [row.id for row in page]
                before = page[-1].seq, page[-1].id
            assert seen == newest_first
    assert [row.id for row in await store.jobs("default", (3, ""), 2)] == ["b5", "a2"]
    found = [row.id for row in await store.jobs("default", (6, "b1"), 3, ["failed"])]
    assert found == ["b2", "a5", "b4"]


async def test_the_newest_of_a_name_is_that_of_all_pools(
    store: Store, pools: tuple[Writing, Writing]
) -> None:
    east, west = pools
    await east.submit("j1", 10, name="train")
    await west.submit("j3", 20, name="train")
    await east.submit("j2", 20, name="train")
    await east.submit("j4", 15, name="train")
    (found,) = await store.find_jobs("default", "train")
    assert (found.id, found.pool) == ("j3", "west")
    found_by_prefix = await store.find_jobs("default", "j")
    assert [(row.id, row.pool) for row in found_by_prefix] == [
        ("j3", "west"),
        ("j2", "east"),
        ("j4", "east"),
        ("j1", "east"),
    ]


async def test_retention_is_of_one_pool(store: Store, pools: tuple[Writing, Writing]) -> None:
    for leader, job in zip(pools, ("j1", "j2"), strict=True):
        await leader.submit(job, 1, state="succeeded", ended_at=5)
        await leader.commit(events=[rows.event(1, job)])
        key = msgspec.structs.replace(rows.reservation(job, job=job), pool=leader.pool)
        await store.reserve([key])
    late = 2**60
    assert await store.expired("west", late, 9) == ["j2"]
    assert await store.expire("west", late, 9) == 1
    assert [row.id for row in await store.jobs("default", None, 9)] == ["j1"]
    assert await store.reserved("default", "j2") is None
    kept = await store.reserved("default", "j1")
    assert kept is not None and kept.pool == "east"
    assert len(await store.events("east", 0, 9)) == 1 and await store.events("west", 0, 9) == []


# --- nodes ----------------------------------------------------------------------------------------
async def test_nodes_are_found_in_any_pool(store: Store, pools: tuple[Writing, Writing]) -> None:
    east, west = pools
    await east.commit(nodes=[rows.node("n1", name="alpha"), rows.node("n2", name="beta")])
    await west.commit(nodes=[rows.node("n4", name="alpha"), rows.node("n3", name="n1")])
    await west.commit(nodes=[rows.node("n5", name="alpha", state=FORGOTTEN), rows.node("n6", state="lost")])
    assert await store.find_nodes("alpha") == [("n1", "east"), ("n4", "west")]
    assert await store.find_nodes("n1") == [("n1", "east")]  # the id, although another one is named so
    assert await store.find_nodes("n3") == [("n3", "west")]
    assert await store.find_nodes("n6") == [("n6", "west")]
    for nobody in ("", "n", "n5", "Alpha", "gamma"):
        assert await store.find_nodes(nobody) == []


async def test_a_forgotten_node_joins_another_pool(store: Store, pools: tuple[Writing, Writing]) -> None:
    east, west = pools
    await east.commit(nodes=[rows.node("n1")])
    await east.commit(nodes=[rows.node("n1", state=FORGOTTEN)])
    assert await store.find_nodes("n1") == []
    await west.commit(nodes=[rows.node("n1", instance="i2")])
    await east.commit(nodes=[rows.node("n1", state=FORGOTTEN)])  # its leader remembers it still
    assert await store.nodes("east") == []
    assert await store.nodes("west") == [rows.node("n1", instance="i2")]
    assert await store.find_nodes("n1") == [("n1", "west")]
    for leader, known in ((east, []), (west, ["n1"])):
        snapshot, _ = await store.load(leader.pool, leader.term)
        assert [row.id for row in snapshot.nodes] == known
    await west.commit(nodes=[rows.node("n1", state=FORGOTTEN)])
    await east.commit(nodes=[rows.node("n1", instance="i3")])  # and back
    assert await store.nodes("west") == []
    assert await store.find_nodes("n1") == [("n1", "east")]


async def test_a_node_that_stands_in_a_pool_is_taken_by_no_other(
    store: Store, pools: tuple[Writing, Writing]
) -> None:
    east, west = pools
    for state in ("ready", "lost"):
        await east.commit(nodes=[rows.node("n1", state=state)])
        await west.commit(nodes=[rows.node("n1", instance="thief"), rows.node("n2")])
        assert await store.nodes("east") == [rows.node("n1", state=state)]
        assert [row.id for row in await store.nodes("west")] == ["n2"]
