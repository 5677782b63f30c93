"""What the API and ``--json`` show of tokens, enrolment and the audit; see views.py for the rules."""

from __future__ import annotations

from msgspec import Struct


class WhoView(Struct, kw_only=True):
    """Who asks. ``role`` is viewer, submitter or admin."""

    name: str
    role: str
    namespace: str


class TokenView(Struct, kw_only=True):
    """``token`` is its text where it has just been made, and null ever after."""

    id: str
    name: str
    role: str
    namespace: str
    created_at: str
    expires_at: str | None
    token: str | None = None


class JoinTokenView(Struct, kw_only=True):
    """A join link that has not been used. The link itself cannot be shown again."""

    id: str
    created_at: str
    expires_at: str | None
    pool: str = "default"


class TokenList(Struct, kw_only=True):
    tokens: list[TokenView]
    joins: list[JoinTokenView] = []


class JoinView(Struct, kw_only=True):
    """A join link, for one node and once; ``id`` takes it back."""

    id: str
    link: str
    expires_at: str
    pool: str = "default"
    """The one that the node joins."""


class AuditEntryView(Struct, kw_only=True):
    seq: int
    at: str
    who: str
    action: str
    target: str
    status: int
    source: str


class AuditView(Struct, kw_only=True):
    """Newest first. ``next_before`` continues where this page ends; null on the last one."""

    entries: list[AuditEntryView]
    next_before: int | None
