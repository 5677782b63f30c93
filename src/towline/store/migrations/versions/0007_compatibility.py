"""What a build asks of a store that it opens: whether it may use a schema that it does not know, and whether
the store is closed."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Text
from sqlalchemy.types import TypeEngine

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ID: TypeEngine[str] = Text().with_variant(Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "compatibility", Column("oldest", ID, primary_key=True, nullable=False), sqlite_with_rowid=False
    )
    # A revision that earlier builds cannot live with inserts its own number; one that only adds does nothing.
    op.execute("INSERT INTO compatibility (oldest) VALUES ('0007')")
    op.create_table(
        "closure",
        Column("reason", Text, primary_key=True, nullable=False),
        Column("at", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
