"""Servers, and the leases of pools, as rows; the part of the store's port for them.

They take no part in the leader's commits, and decide nothing about these: the term in the pool's row does.
Each call is a short transaction of its own. What the rows mean is core/leadership.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from towline.core.leadership import LeaseRow, PoolLease, ServerRow

__all__ = ["CoordinationStore", "LeaseRow", "PoolLease", "ServerRow"]


class CoordinationStore(Protocol):
    """The part of ``Store`` that keeps them."""

    async def pool_create(self, pool: str) -> bool:
        """Make the pool, in term 0; False where there is one."""
        ...

    async def lease_read(self) -> list[PoolLease]:
        """All pools, in order of their ids; a lease that nobody ever took as ``LeaseRow(pool)``."""
        ...

    async def lease_take(self, expected: LeaseRow, holder: str, at_ms: int) -> bool:
        """Give the lease to ``holder`` (NOBODY: free it), unless its (holder, renewals) are others than
        ``expected`` by now; ``renewals`` rise by one. False where nothing was changed."""
        ...

    async def lease_renew(self, holder: str, pools: Sequence[str]) -> list[str]:
        """Raise ``renewals`` by one for those of these pools whose lease ``holder`` has; returns them."""
        ...

    async def server_put(self, row: ServerRow) -> None:
        """Keep it, in place of an older one of this id."""
        ...

    async def server_list(self) -> list[ServerRow]:
        """In order of their ids."""
        ...

    async def server_delete(self, id: str) -> bool:
        """False where there was none."""
        ...

    async def shared_state(self) -> tuple[int, ...]:
        """Numbers that are others after each change of tokens, enrolments or sealed values: by them a server
        sees that what it holds of these in memory is out of date. Each change is counted, but not that a
        node's certificate was renewed: who renews it next looks itself whether it knows the latest."""
        ...
