"""Servers and leases: the part of the store's port in store/coordination/rows.py, in statements."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from towline.core.leadership import LeaseRow
from towline.store.coordination import statements
from towline.store.coordination.rows import PoolLease, ServerRow
from towline.store.sql.plans import Ask, Cells, Plan, Running, first


class SqlCoordination(Running):
    """Mixed into a store."""

    async def pool_create(self, pool: str) -> bool:
        return await self._change(statements.pool_create, {"pool": pool}) == 1

    async def lease_read(self) -> list[PoolLease]:
        return await self._read(_leases(), single=True, urgent=True)

    async def lease_take(self, expected: LeaseRow, holder: str, at_ms: int) -> bool:
        values = {"pool": expected.pool, "holder": holder, "taken_at": at_ms}
        values |= {"expected": expected.holder, "renewals": expected.renewals + 1}
        return await self._change(statements.lease_take, values, urgent=True) == 1

    async def lease_renew(self, holder: str, pools: Sequence[str]) -> list[str]:
        pools = sorted(pools)  # one order for all who change several: nobody waits in a circle
        values = [{"owner": holder, "which": pool} for pool in pools]
        changed = await self._change_each(statements.lease_renew, values, urgent=True)
        return [pool for pool, count in zip(pools, changed, strict=True) if count == 1]

    async def server_put(self, row: ServerRow) -> None:
        await self._change(statements.server_put, structs.asdict(row), urgent=True)

    async def server_list(self) -> list[ServerRow]:
        return await self._read(_servers(), single=True, urgent=True)

    async def server_delete(self, id: str) -> bool:
        return await self._change(statements.server_delete, {"which": id}, urgent=True) == 1

    async def shared_state(self) -> tuple[int, ...]:
        return await self._read(_shared_state(), single=True)


def _shared_state() -> Plan[tuple[int, ...]]:
    found = yield from first(statements.shared_state, statements.SHARED)
    return tuple(found or ())


def _leases() -> Plan[list[PoolLease]]:
    return [_pool_lease(cells) for cells in (yield Ask(statements.lease_read, {}))]


def _pool_lease(cells: Cells) -> PoolLease:
    pool, term, event_no, holder, renewals, taken_at = cells
    if holder is None:
        return PoolLease(term, event_no, LeaseRow(pool))
    return PoolLease(term, event_no, LeaseRow(pool, holder, renewals, taken_at))


def _servers() -> Plan[list[ServerRow]]:
    found = yield Ask(statements.server_list, {})
    return [ServerRow(**dict(zip(statements.SERVER, cells, strict=True))) for cells in found]
