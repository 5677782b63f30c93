"""Servers and leases in memory: the part of the store's port in rows.py."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from towline.core.leadership import LeaseRow
from towline.store.coordination.rows import PoolLease, ServerRow


class MemoryCoordination:
    """Mixed into MemoryStore, which has the pools."""

    def __init__(self) -> None:
        self._leases: dict[str, LeaseRow] = {}
        self._servers: dict[str, ServerRow] = {}

    @abstractmethod
    def _counters(self) -> dict[str, tuple[int, int]]:
        """Each pool's (term, event_no)."""
        ...

    @abstractmethod
    async def pool_create(self, pool: str) -> bool: ...

    async def lease_read(self) -> list[PoolLease]:
        return [
            PoolLease(*counters, self._leases.get(pool, LeaseRow(pool)))
            for pool, counters in sorted(self._counters().items())
        ]

    async def lease_take(self, expected: LeaseRow, holder: str, at_ms: int) -> bool:
        if self._leases.get(expected.pool, LeaseRow(expected.pool)).state != expected.state:
            return False
        self._leases[expected.pool] = LeaseRow(expected.pool, holder, expected.renewals + 1, at_ms)
        return True

    async def lease_renew(self, holder: str, pools: Sequence[str]) -> list[str]:
        own = [pool for pool in sorted(pools) if pool in self._leases and self._leases[pool].holder == holder]
        for pool in own:
            self._leases[pool] = self._leases[pool]._replace(renewals=self._leases[pool].renewals + 1)
        return own

    async def server_put(self, row: ServerRow) -> None:
        self._servers[row.id] = row

    async def server_list(self) -> list[ServerRow]:
        return [self._servers[id] for id in sorted(self._servers)]

    async def server_delete(self, id: str) -> bool:
        return self._servers.pop(id, None) is not None
