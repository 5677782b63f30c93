"""Several servers: which there are, and who has the lease of which pool."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Text
from sqlalchemy.types import TypeEngine

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ID: TypeEngine[str] = Text().with_variant(Text(collation="C"), "postgresql")


def _id(name: str, *, key: bool = False) -> Column[str]:
    return Column(name, ID, primary_key=key, nullable=False)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def upgrade() -> None:
    op.create_table(
        "lease",
        _id("pool", key=True),
        _id("holder"),
        _number("renewals"),
        _number("taken_at"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "server",
        _id("id", key=True),
        _text("name"),
        _text("address"),
        _text("build"),
        _number("started_at"),
        _number("beats"),
        _number("lease_ms"),
        _text("files"),
        _text("coordination"),
        sqlite_with_rowid=False,
    )
