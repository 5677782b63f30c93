"""Queues, GPUs, lengths of past attempts, and what is kept encrypted."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Text, text
from sqlalchemy.types import TypeEngine

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# A revision says what was true when it was written: it does not import the schema of today.
ID: TypeEngine[str] = Text().with_variant(Text(collation="C"), "postgresql")


def _id(name: str, *, key: bool = False, optional: bool = False) -> Column[str]:
    return Column(name, ID, primary_key=key, nullable=optional)


def _number(name: str, *, optional: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=optional)


def _bytes(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=False)


def _add(table: str, *columns: Column[str] | Column[int] | Column[bytes]) -> None:
    for column in columns:
        op.add_column(table, column)


def _json(name: str, empty: bytes) -> Column[bytes]:
    literal = f"x'{empty.hex()}'" if op.get_context().dialect.name == "sqlite" else f"'\\x{empty.hex()}'"
    return Column(name, LargeBinary, nullable=False, server_default=text(literal))


def _add_columns() -> None:
    _add("job", Column("queue", ID, nullable=False, server_default="default"))
    _add("task", Column("image_digest", Text))
    _add("attempt", Column("devices", Text), Column("placed", Text))
    _add(
        "node",
        _json("gpus", b"[]"),
        _json("taints", b"[]"),
        _json("protects", b"{}"),
        Column("disk_bytes", BigInteger, nullable=False, server_default="0"),
    )


def _create_tables() -> None:
    op.create_table(
        "queue",
        _id("pool", key=True),
        _id("name", key=True),
        _id("parent", optional=True),
        _number("weight_milli"),
        _bytes("guaranteed"),
        _bytes("maximum"),
        Column("max_priority", Integer, nullable=False),
        _number("max_active", optional=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "usage",
        _id("pool", key=True),
        _id("namespace", key=True),
        _number("usage"),
        _number("at"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "duration",
        _id("pool", key=True),
        _id("namespace", key=True),
        _id("name", key=True),
        _id("task", key=True),
        _bytes("data"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sealed",
        _id("namespace", key=True),
        Column("kind", Text, primary_key=True, nullable=False),
        _id("name", key=True),
        _bytes("data"),
        Column("user", Text),
        _number("version"),
        _number("updated_at"),
        sqlite_with_rowid=False,
    )


def upgrade() -> None:
    _add_columns()
    _create_tables()
