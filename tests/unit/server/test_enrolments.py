"""Which certificates make a member: what happens to them at the same moment, and one after the other."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from towline.errors import Conflict, NotFound, StoreError, Unavailable
from towline.identity.certificates import make_authority, make_key, make_request
from towline.server.access.authority import Authority
from towline.server.access.enrolments import Enrolled, Enrolments
from towline.server.access.held_rows import HeldRows
from towline.server.access.tokens import Tokens
from towline.store.sqlite import SqliteStore

NODE = "node-0123456789abcdef"


class Cluster:
    """Enrolments with a clock that is set by hand."""

    def __init__(self, store: SqliteStore) -> None:
        self.now_ms = 1_800_000_000_999
        self.store = store
        pair = make_authority("Towline test", 10, self.now())
        self.tokens = Tokens(store, lambda: self.now_ms)
        self.enrolments = Enrolments(store, Authority(pair, self.now), self.tokens, lambda: self.now_ms)

    def now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self.now_ms / 1000, datetime.UTC)

    async def enrol(self) -> int:
        """When its certificate was made, as the certificate tells it: unix ms."""
        _, token = await self.tokens.create_join(60_000, "default")
        await self.enrolments.enrol(token, NODE, "n1", make_request(make_key(), NODE))
        return self.now_ms // 1000 * 1000

    async def renew(self) -> Enrolled:
        return await self.enrolments.renew(NODE, make_request(make_key(), NODE))


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    store = SqliteStore(tmp_path / "state.db")
    await store.open()
    yield Cluster(store)
    await store.close()


async def test_a_certificate_of_before_it_was_forgotten_is_worth_nothing_when_the_node_is_back(
    cluster: Cluster,
) -> None:
    old = await cluster.enrol()
    await cluster.enrolments.forget(NODE)
    assert not cluster.enrolments.admits(NODE, old)
    cluster.now_ms += 1000
    fresh = await cluster.enrol()
    assert cluster.enrolments.admits(NODE, fresh)
    assert not cluster.enrolments.admits(NODE, old)


async def test_a_renewal_keeps_a_member_also_where_the_clock_was_set_back(cluster: Cluster) -> None:
    first = await cluster.enrol()
    cluster.now_ms -= 3_600_000
    await cluster.renew()
    assert cluster.enrolments.admits(NODE, first)
    assert cluster.enrolments.admits(NODE, cluster.now_ms // 1000 * 1000)


async def test_a_node_that_is_forgotten_while_it_renews_stays_forgotten(cluster: Cluster) -> None:
    first = await cluster.enrol()
    await asyncio.gather(cluster.renew(), cluster.enrolments.forget(NODE))
    assert not cluster.enrolments.admits(NODE, first)
    await cluster.enrolments.load()
    assert not cluster.enrolments.admits(NODE, first)


async def test_two_links_do_not_enrol_one_node_at_the_same_moment(cluster: Cluster) -> None:
    done = await asyncio.gather(cluster.enrol(), cluster.enrol(), return_exceptions=True)
    assert [type(one) for one in done if isinstance(one, Exception)] == [Conflict]


async def test_what_another_server_has_forgotten_is_not_brought_back_by_a_renewal(cluster: Cluster) -> None:
    first = await cluster.enrol()
    await cluster.store.enrolment_delete(NODE)  # by the leader of the node's pool; this server has not heard
    assert cluster.enrolments.admits(NODE, first)
    with pytest.raises(Unavailable):
        await cluster.renew()
    assert not cluster.enrolments.admits(NODE, first) and await cluster.store.enrolment_list() == []
    with pytest.raises(NotFound):
        await cluster.renew()


async def test_a_node_that_another_server_has_just_forgotten_may_enrol_at_once(cluster: Cluster) -> None:
    old = await cluster.enrol()
    await cluster.store.enrolment_delete(NODE)
    cluster.now_ms += 1000
    fresh = await cluster.enrol()
    assert cluster.enrolments.admits(NODE, fresh) and not cluster.enrolments.admits(NODE, old)
    with pytest.raises(Conflict):
        await cluster.enrol()


async def test_what_is_taken_back_while_it_is_read_is_not_there_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await cluster.enrol()
    row, text = await cluster.tokens.create("ada", "viewer", "default", None)
    late, held = asyncio.Event(), asyncio.Event()
    for name in ("enrolment_list", "token_list"):
        read = getattr(cluster.store, name)

        async def slow(read: Any = read) -> Any:
            rows = await read()
            held.set()
            await late.wait()
            return rows

        monkeypatch.setattr(cluster.store, name, slow)
        reading = asyncio.create_task(
            (cluster.enrolments if name == "enrolment_list" else cluster.tokens).load()
        )
        await held.wait()
        held.clear()
        monkeypatch.undo()
        await (cluster.enrolments.forget(NODE) if name == "enrolment_list" else cluster.tokens.delete(row.id))
        late.set()
        await reading
        late.clear()
    assert not cluster.enrolments.admits(NODE, first)
    assert cluster.tokens.principal(text) is None


async def test_of_two_reads_the_one_that_began_later_counts() -> None:
    rows: HeldRows[str] = HeldRows()
    late = asyncio.Event()

    async def old() -> list[str]:
        await late.wait()
        return ["a", "b"]

    async def new() -> list[str]:
        return ["b"]

    reading = asyncio.create_task(rows.read(old, str))
    await asyncio.sleep(0)
    await rows.read(new, str)
    late.set()
    await reading
    assert rows == {"b": "b"}


async def test_a_join_link_that_the_store_could_not_be_asked_about_is_good_for_another_try(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> bool:
        raise StoreError("it does not answer")

    _, token = await cluster.tokens.create_join(60_000, "default")
    with monkeypatch.context() as away:
        away.setattr(cluster.store, "token_use", fails)
        with pytest.raises(StoreError):
            await cluster.tokens.use_join(token)
    assert await cluster.tokens.use_join(token) is not None
    assert await cluster.tokens.use_join(token) is None
