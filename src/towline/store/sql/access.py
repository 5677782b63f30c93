"""Tokens, enrolled nodes and the audit: the part of the store's port in store/access.py, in statements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec import structs

from towline.store import access_statements as statements
from towline.store.access import AuditRow, EnrolmentRow, TokenRow
from towline.store.sql.facts import MAX_SEQ
from towline.store.sql.plans import Ask, Plan, Running

T = TypeVar("T")


class SqlAccess(Running):
    """Mixed into a store."""

    async def token_put(self, row: TokenRow) -> None:
        await self._change_shared(statements.token_put, structs.asdict(row))

    async def token_list(self) -> list[TokenRow]:
        return await self._read(_listed(TokenRow, statements.TOKEN, statements.token_list, {}), single=True)

    async def token_use(self, id: str, at_ms: int) -> bool:
        return await self._change_shared(statements.token_use, {"token": id, "at": at_ms}) == 1

    async def token_delete(self, id: str) -> bool:
        return await self._change_shared(statements.token_delete, {"token": id}) == 1

    async def enrolment_put(self, row: EnrolmentRow) -> None:
        await self._change_shared(statements.enrolment_put, structs.asdict(row))

    async def enrolment_renew(self, node: str, was: int, enrolled_at: int, expires_at: int) -> bool:
        values = {"which": node, "was": was, "at": enrolled_at, "until": expires_at}
        return await self._change(statements.enrolment_renew, values) == 1

    async def enrolment_list(self) -> list[EnrolmentRow]:
        return await self._read(
            _listed(EnrolmentRow, statements.ENROLMENT, statements.enrolment_list, {}), single=True
        )

    async def enrolment_delete(self, node: str) -> bool:
        return await self._change_shared(statements.enrolment_delete, {"which": node}) == 1

    async def audit_list(self, before_seq: int | None, limit: int) -> list[AuditRow]:
        values = {"before": MAX_SEQ if before_seq is None else before_seq, "count": limit}
        return await self._read(
            _listed(AuditRow, statements.AUDIT, statements.audit_list, values), single=True
        )

    async def audit_expire(self, before_ms: int) -> int:
        return await self._change(statements.audit_expire, {"before_ms": before_ms})


def _listed(
    kind: Callable[..., T], columns: Sequence[str], make: Callable[..., Any], values: dict[str, Any]
) -> Plan[list[T]]:
    return [kind(**dict(zip(columns, cells, strict=True))) for cells in (yield Ask(make, values))]
