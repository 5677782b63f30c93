"""Three real ZooKeeper servers, and stores whose leases are there."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
from tests import zookeeper

from towline.coordination.zookeeper import Ensemble, ZooKeeperLeases
from towline.core.leadership import LeaseRow, PoolLease
from towline.store.memory import MemoryStore


@pytest.fixture(scope="module")
def ensemble() -> Iterator[zookeeper.Ensemble]:
    with zookeeper.ensemble() as made:
        yield made


@pytest.fixture
def url(ensemble: zookeeper.Ensemble) -> str:
    """Of a path of the test's own."""
    return ensemble.url(f"towline/{secrets.token_hex(4)}")


class Leased(MemoryStore):
    """A store of one process whose leases are in ZooKeeper: what a server with ``coordination_url`` has."""

    leases: ZooKeeperLeases

    async def lease_read(self) -> list[PoolLease]:
        return await self.leases.lease_read()

    async def lease_take(self, expected: LeaseRow, holder: str, at_ms: int) -> bool:
        return await self.leases.lease_take(expected, holder, at_ms)

    async def lease_renew(self, holder: str, pools: Sequence[str]) -> list[str]:
        return await self.leases.lease_renew(holder, pools)

    async def own_rows(self) -> list[PoolLease]:
        return await super().lease_read()


class _Beneath:
    """What ZooKeeperLeases asks the store that it stands before."""

    def __init__(self, store: Leased) -> None:
        self.lease_read = store.own_rows
        self.server_put = store.server_put
        self.server_list = store.server_list
        self.server_delete = store.server_delete


@pytest.fixture
async def store(url: str) -> AsyncIterator[Leased]:
    made = Leased()
    made.leases = ZooKeeperLeases(Ensemble(url), _Beneath(made))  # type: ignore[arg-type]
    await made.leases.open()
    yield made
    await made.leases.close()
