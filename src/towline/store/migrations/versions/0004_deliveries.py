"""Webhooks that are owed for jobs' ends."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, Text, text
from sqlalchemy.types import TypeEngine

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID: TypeEngine[str] = Text().with_variant(Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "delivery",
        Column("pool", ID, primary_key=True, nullable=False),
        Column("number", BigInteger, primary_key=True, nullable=False, autoincrement=False),
        Column("position", Integer, primary_key=True, nullable=False, autoincrement=False),
        Column("job", ID, nullable=False),
        Column("outcome", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("next_at", BigInteger, nullable=False),
        Column("message", Text, nullable=True),
        sqlite_with_rowid=False,
    )
    op.create_index("delivery_by_job", "delivery", ["job"])
    pending = text("state = 'pending'")
    op.create_index(
        "delivery_due", "delivery", ["pool", "next_at"], sqlite_where=pending, postgresql_where=pending
    )
    op.create_table(
        "delivery_cursor",
        Column("pool", ID, primary_key=True, nullable=False),
        Column("number", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
