"""Which pool a server takes for the first one: all servers of a store have to agree."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Text

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("server", Column("pool", Text, nullable=False, server_default=""))
