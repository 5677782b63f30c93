"""Who may do what, as rows: tokens, enrolled nodes, and the audit; the part of the store's port for them.

They belong to no pool. Each change is a short transaction of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct


class TokenRow(Struct, frozen=True, kw_only=True):
    """An API token (``kind`` ``api``), or one that enrols a node once (``join``). Times are unix ms;
    ``expires_at`` None: never. ``digest`` is of the secret, which is kept nowhere."""

    id: str
    kind: str
    name: str
    role: str
    namespace: str
    digest: bytes
    created_at: int
    expires_at: int | None = None
    used_at: int | None = None
    """When a join token was used; it is worth nothing since."""
    pool: str = ""
    """The pool that a join token's node joins; empty: the one that is there from the start."""

    def __repr__(self) -> str:
        return f"<TokenRow {self.id} {self.kind} {self.name!r}>"


class EnrolmentRow(Struct, frozen=True, kw_only=True):
    """A node that may open a link with a certificate of its own. ``expires_at`` is the certificate's;
    ``pool`` is the one that it joins, empty: the one that is there from the start."""

    node: str
    name: str
    enrolled_at: int
    expires_at: int
    pool: str = ""


class AuditRow(Struct, frozen=True, kw_only=True):
    """One request that was to change something, and what became of it. ``seq`` rises."""

    seq: int
    at: int
    who: str
    namespace: str
    action: str
    target: str
    status: int
    """The HTTP status of the answer."""
    source: str
    """The caller's address; ``socket`` for the local one."""


class AccessStore(Protocol):
    """The part of ``Store`` that keeps them."""

    async def token_put(self, row: TokenRow) -> None:
        """Keep a new token."""
        ...

    async def token_list(self) -> list[TokenRow]:
        """In order of their ids."""
        ...

    async def token_use(self, id: str, at_ms: int) -> bool:
        """Mark a join token as used; False where it is gone or was used before: of many who ask for the
        same one, one gets True."""
        ...

    async def token_delete(self, id: str) -> bool:
        """False where there was none."""
        ...

    async def enrolment_put(self, row: EnrolmentRow) -> None:
        """Keep it, in place of an older one of the same node."""
        ...

    async def enrolment_renew(self, node: str, was: int, enrolled_at: int, expires_at: int) -> bool:
        """Change the times of the one that was enrolled at ``was``; False, and nothing is kept, where that is
        gone, or is another one by now. Times are unix ms."""
        ...

    async def enrolment_list(self) -> list[EnrolmentRow]:
        """In order of the nodes' ids."""
        ...

    async def enrolment_delete(self, node: str) -> bool:
        """False where there was none."""
        ...

    async def audit_append(self, rows: Sequence[AuditRow]) -> None:
        """Append all of them or none; their ``seq`` is given here, in their order, and not read."""
        ...

    async def audit_list(self, before_seq: int | None, limit: int) -> list[AuditRow]:
        """Newest first."""
        ...

    async def audit_expire(self, before_ms: int) -> int:
        """Delete what is older; returns how many rows."""
        ...
