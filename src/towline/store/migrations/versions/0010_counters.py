"""Counters of changes: by one of them each server sees that what it holds in memory has changed."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Text
from sqlalchemy.types import TypeEngine

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

ID: TypeEngine[str] = Text().with_variant(Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "counter",
        Column("name", ID, primary_key=True, nullable=False),
        Column("number", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
