"""Tokens, enrolled nodes, the audit, and nodes that are drained."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Text
from sqlalchemy.types import TypeEngine

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID: TypeEngine[str] = Text().with_variant(Text(collation="C"), "postgresql")


def _id(name: str, *, key: bool = False) -> Column[str]:
    return Column(name, ID, primary_key=key, nullable=False)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _number(name: str, *, key: bool = False, optional: bool = False) -> Column[int]:
    return Column(name, BigInteger, primary_key=key, nullable=optional, autoincrement=False)


def upgrade() -> None:
    op.create_table(
        "token",
        _id("id", key=True),
        _text("kind"),
        _text("name"),
        _text("role"),
        _id("namespace"),
        Column("digest", LargeBinary, nullable=False),
        _number("created_at"),
        _number("expires_at", optional=True),
        _number("used_at", optional=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "enrolment",
        _id("node", key=True),
        _text("name"),
        _number("enrolled_at"),
        _number("expires_at"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "audit",
        _number("seq", key=True),
        _number("at"),
        _text("who"),
        _id("namespace"),
        _text("action"),
        _text("target"),
        Column("status", Integer, nullable=False),
        _text("source"),
        sqlite_with_rowid=False,
    )
    op.create_index("audit_by_age", "audit", ["at"])
    op.add_column("node", _number("drain_at", optional=True))
    op.add_column("node", _number("drain_until", optional=True))
