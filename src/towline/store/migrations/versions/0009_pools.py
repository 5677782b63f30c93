"""Which pool a join token's node joins, which pool a node was enrolled for, and nodes by name in any pool."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Text
from sqlalchemy.types import TypeEngine

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ID: TypeEngine[str] = Text().with_variant(Text(collation="C"), "postgresql")


def upgrade() -> None:
    for table in ("token", "enrolment"):
        op.add_column(table, Column("pool", ID, nullable=False, server_default=""))
    op.create_index("node_by_name", "node", ["name"])
