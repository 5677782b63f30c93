"""Node leases that last longer while the only server is stopped."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("node", Column("lease_ms", BigInteger, nullable=False, server_default="0"))
