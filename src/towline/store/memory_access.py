"""Tokens, enrolled nodes and the audit in memory: the part of the store's port in store/access.py."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from towline.store.access import AuditRow, EnrolmentRow, TokenRow


class MemoryAccess:
    """Mixed into MemoryStore."""

    def __init__(self) -> None:
        self._tokens: dict[str, TokenRow] = {}
        self._enrolments: dict[str, EnrolmentRow] = {}
        self._audit: list[AuditRow] = []
        self._changes = 0
        """Of what servers hold in memory."""

    async def shared_state(self) -> tuple[int, ...]:
        return (self._changes,)

    async def token_put(self, row: TokenRow) -> None:
        self._tokens[row.id] = row
        self._changes += 1

    async def token_list(self) -> list[TokenRow]:
        return [self._tokens[id] for id in sorted(self._tokens)]

    async def token_use(self, id: str, at_ms: int) -> bool:
        row = self._tokens.get(id)
        if row is None or row.used_at is not None:
            return False
        self._tokens[id] = structs.replace(row, used_at=at_ms)
        self._changes += 1
        return True

    async def token_delete(self, id: str) -> bool:
        return self._counted(self._tokens.pop(id, None) is not None)

    def _counted(self, changed: bool) -> bool:
        self._changes += changed
        return changed

    async def enrolment_put(self, row: EnrolmentRow) -> None:
        self._enrolments[row.node] = row
        self._changes += 1

    async def enrolment_renew(self, node: str, was: int, enrolled_at: int, expires_at: int) -> bool:
        row = self._enrolments.get(node)
        if row is None or row.enrolled_at != was:
            return False
        self._enrolments[node] = structs.replace(row, enrolled_at=enrolled_at, expires_at=expires_at)
        return True

    async def enrolment_list(self) -> list[EnrolmentRow]:
        return [self._enrolments[node] for node in sorted(self._enrolments)]

    async def enrolment_delete(self, node: str) -> bool:
        return self._counted(self._enrolments.pop(node, None) is not None)

    async def audit_append(self, rows: Sequence[AuditRow]) -> None:
        last = self._audit[-1].seq if self._audit else 0
        self._audit += [structs.replace(row, seq=seq) for seq, row in enumerate(rows, last + 1)]

    async def audit_list(self, before_seq: int | None, limit: int) -> list[AuditRow]:
        rows = [row for row in reversed(self._audit) if before_seq is None or row.seq < before_seq]
        return rows[:limit]

    async def audit_expire(self, before_ms: int) -> int:
        before = len(self._audit)
        self._audit = [row for row in self._audit if row.at >= before_ms]
        return before - len(self._audit)
