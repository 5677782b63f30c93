"""Everything that the first version keeps."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, Text, text
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# A revision says what was true when it was written: it does not import the schema of today.
ID: TypeEngine[str] = Text().with_variant(Text(collation="C"), "postgresql")


def _id(name: str, *, key: bool = False, optional: bool = False) -> Column[str]:
    return Column(name, ID, primary_key=key, nullable=optional)


def _text(name: str, *, optional: bool = False) -> Column[str]:
    return Column(name, Text, nullable=optional)


def _number(name: str, *, key: bool = False, optional: bool = False) -> Column[int]:
    return Column(name, BigInteger, primary_key=key, nullable=optional, autoincrement=False)


def _small(name: str, *, key: bool = False, optional: bool = False) -> Column[int]:
    return Column(name, Integer, primary_key=key, nullable=optional, autoincrement=False)


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False)


def _bytes(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=False)


def _index(name: str, table: str, columns: list[str], where: str | None = None) -> None:
    if where is None:
        op.create_index(name, table, columns)
    else:
        op.create_index(name, table, columns, sqlite_where=text(where), postgresql_where=text(where))


def _create_pool_and_jobs() -> None:
    op.create_table(
        "pool",
        _id("id", key=True),
        _number("term"),
        _number("commit_no"),
        _number("event_no"),
        _number("job_seq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "job",
        _id("id", key=True),
        _number("seq"),
        _id("namespace"),
        _id("name"),
        _text("state"),
        _text("reason", optional=True),
        _text("message", optional=True),
        _small("priority"),
        _flag("cancel_requested"),
        _number("submitted_at"),
        _number("ended_at", optional=True),
        _id("pool"),
    )
    _index("job_by_name", "job", ["namespace", "name", "seq"])
    _index("job_by_seq", "job", ["namespace", "seq"])
    _index("job_by_state", "job", ["namespace", "state", "seq"])
    _index("job_ended", "job", ["pool", "ended_at"], "ended_at IS NOT NULL")
    _index("job_unfinished", "job", ["pool", "seq"], "ended_at IS NULL")
    op.create_table(
        "spec",
        _id("job", key=True),
        _bytes("spec"),
        _text("base_dir", optional=True),
    )
    op.create_table(
        "idempotency",
        _id("namespace", key=True),
        _id("key", key=True),
        _text("digest"),
        _id("job"),
        _id("pool"),
        _text("error", optional=True),
        _number("created_at"),
        sqlite_with_rowid=False,
    )
    _index("idempotency_by_age", "idempotency", ["pool", "created_at"])


def _create_elements() -> None:
    op.create_table(
        "task",
        _id("job", key=True),
        _small("task", key=True),
        _text("name"),
        _number("first"),
        _number("last"),
        _number("next"),
        _flag("ready"),
        _number("waiting"),
        _number("queued"),
        _number("active"),
        _number("succeeded"),
        _number("failed"),
        _number("cancelled"),
        _number("skipped"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "element",
        _id("job", key=True),
        _small("task", key=True),
        _number("idx", key=True),
        _text("state"),
        _small("number"),
        _small("failures"),
        _small("losses"),
        _number("not_before", optional=True),
        _text("reason", optional=True),
        _text("message", optional=True),
        _small("exit_code", optional=True),
        sqlite_with_rowid=False,
    )
    _index("element_failed", "element", ["job"], "state = 'failed'")
    op.create_table(
        "element_range",
        _id("job", key=True),
        _small("task", key=True),
        _number("lo", key=True),
        _number("hi"),
        _text("state"),
        _text("reason", optional=True),
        _text("message", optional=True),
        sqlite_with_rowid=False,
    )


def _create_attempts() -> None:
    op.create_table(
        "attempt",
        _id("job", key=True),
        _small("task", key=True),
        _number("idx", key=True),
        _small("number", key=True),
        _id("node"),
        _text("state"),
        _text("stop", optional=True),
        _text("reason", optional=True),
        _text("message", optional=True),
        _small("exit_code", optional=True),
        _small("signal", optional=True),
        _number("assigned_at"),
        _number("started_at", optional=True),
        _number("finished_at", optional=True),
        _number("peak_memory_bytes", optional=True),
        _number("cpu_ms", optional=True),
        _text("image_digest", optional=True),
        sqlite_with_rowid=False,
    )
    _index("attempt_live", "attempt", ["job"], "state NOT IN ('finished', 'lost')")


def _create_nodes_and_events() -> None:
    op.create_table(
        "node",
        _id("id", key=True),
        _text("name"),
        _text("instance"),
        _text("state"),
        _number("cpu_milli"),
        _number("memory_bytes"),
        _number("pids"),
        _bytes("labels"),
        _bytes("runtimes"),
        _id("pool"),
    )
    _index("node_by_pool", "node", ["pool", "id"])
    op.create_table(
        "event",
        _id("stream", key=True),
        _number("number", key=True),
        _number("at"),
        _text("kind"),
        _id("job", optional=True),
        _bytes("data"),
        sqlite_with_rowid=False,
    )
    _index("event_by_job", "event", ["job", "stream", "number"], "job IS NOT NULL")


def upgrade() -> None:
    _create_pool_and_jobs()
    _create_elements()
    _create_attempts()
    _create_nodes_and_events()
