"""When a node said what is known of it, so that nothing older takes its place."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Text

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("node", Column("boot_id", Text, nullable=False, server_default=""))
    op.add_column("node", Column("said_ms", BigInteger, nullable=False, server_default="0"))
