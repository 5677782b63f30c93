"""Which certificates make a member: what happens to them at the same moment, and one after the other."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from towline.errors import Conflict
from towline.identity.certificates import make_authority, make_key, make_request
from towline.server.access.authority import Authority
from towline.server.access.enrolments import Enrolled, Enrolments
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
