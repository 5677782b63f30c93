"""The tables, portable between SQLite and PostgreSQL; ``migrations`` makes them, nothing else does.

Times are milliseconds since 1970 (UTC). Structured values (a job's spec, an event's data, a node's
labels) are JSON bytes: the store never looks into them. Column names are those of the rows in
``core/rows.py``, except ``idx`` for ``index``. Nothing secret is kept here in the clear.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeEngine

metadata = MetaData()

# Ids are compared as bytes everywhere: a prefix of an id is a range of the index.
Id: TypeEngine[str] = Text().with_variant(Text(collation="C"), "postgresql")


def _id(name: str, *, key: bool = False, optional: bool = False) -> Column[str]:
    return Column(name, Id, primary_key=key, nullable=optional)


def _text(name: str, *, key: bool = False, optional: bool = False) -> Column[str]:
    return Column(name, Text, primary_key=key, nullable=optional)


def _number(name: str, *, key: bool = False, optional: bool = False) -> Column[int]:
    return Column(name, BigInteger, primary_key=key, nullable=optional, autoincrement=False)


def _small(name: str, *, key: bool = False, optional: bool = False) -> Column[int]:
    return Column(name, Integer, primary_key=key, nullable=optional, autoincrement=False)


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False)


def _bytes(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=False)


# The counters of a pool: this row is the fence of every commit.
pool = Table(
    "pool",
    metadata,
    _id("id", key=True),
    _number("term"),
    _number("commit_no"),
    _number("event_no"),
    _number("job_seq"),
    sqlite_with_rowid=False,
)

job = Table(
    "job",
    metadata,
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
    _id("queue"),
    _id("pool"),
)
Index("job_by_state", job.c.namespace, job.c.state, job.c.seq)
Index("job_by_seq", job.c.namespace, job.c.seq)
Index("job_by_name", job.c.namespace, job.c.name, job.c.seq)
Index(
    "job_unfinished",
    job.c.pool,
    job.c.seq,
    sqlite_where=text("ended_at IS NULL"),
    postgresql_where=text("ended_at IS NULL"),
)
Index(
    "job_ended",
    job.c.pool,
    job.c.ended_at,
    sqlite_where=text("ended_at IS NOT NULL"),
    postgresql_where=text("ended_at IS NOT NULL"),
)

# Apart from the job's row, which changes often, because a spec may be megabytes.
spec = Table("spec", metadata, _id("job", key=True), _bytes("spec"), _text("base_dir", optional=True))

task = Table(
    "task",
    metadata,
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
    _text("image_digest", optional=True),
    sqlite_with_rowid=False,
)

element = Table(
    "element",
    metadata,
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
Index(
    "element_failed",
    element.c.job,
    sqlite_where=text("state = 'failed'"),
    postgresql_where=text("state = 'failed'"),
)

element_range = Table(
    "element_range",
    metadata,
    _id("job", key=True),
    _small("task", key=True),
    _number("lo", key=True),
    _number("hi"),
    _text("state"),
    _text("reason", optional=True),
    _text("message", optional=True),
    sqlite_with_rowid=False,
)

attempt = Table(
    "attempt",
    metadata,
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
    _text("devices", optional=True),
    _text("placed", optional=True),
    sqlite_with_rowid=False,
)
# Holds only what is on nodes now, so it stays small however long the history is.
Index(
    "attempt_live",
    attempt.c.job,
    sqlite_where=text("state NOT IN ('finished', 'lost')"),
    postgresql_where=text("state NOT IN ('finished', 'lost')"),
)

node = Table(
    "node",
    metadata,
    _id("id", key=True),
    _text("name"),
    _text("instance"),
    _text("state"),
    _number("cpu_milli"),
    _number("memory_bytes"),
    _number("pids"),
    _bytes("labels"),
    _bytes("runtimes"),
    _bytes("gpus"),
    _bytes("taints"),
    _bytes("protects"),
    _number("disk_bytes"),
    _number("drain_at", optional=True),
    _number("drain_until", optional=True),
    _number("lease_ms"),
    _text("boot_id"),
    _number("said_ms"),
    _id("pool"),
)
Index("node_by_pool", node.c.pool, node.c.id)
Index("node_by_name", node.c.name)

queue = Table(
    "queue",
    metadata,
    _id("pool", key=True),
    _id("name", key=True),
    _id("parent", optional=True),
    _number("weight_milli"),
    _bytes("guaranteed"),
    _bytes("maximum"),
    _small("max_priority"),
    _number("max_active", optional=True),
    sqlite_with_rowid=False,
)

usage = Table(
    "usage",
    metadata,
    _id("pool", key=True),
    _id("namespace", key=True),
    _number("usage"),
    _number("at"),
    sqlite_with_rowid=False,
)

duration = Table(
    "duration",
    metadata,
    _id("pool", key=True),
    _id("namespace", key=True),
    _id("name", key=True),
    _id("task", key=True),
    _bytes("data"),
    sqlite_with_rowid=False,
)

# Secrets and logins: ``data`` is encrypted with the server's key, which is not in the store.
sealed = Table(
    "sealed",
    metadata,
    _id("namespace", key=True),
    _text("kind", key=True),
    _id("name", key=True),
    _bytes("data"),
    _text("user", optional=True),
    _number("version"),
    _number("updated_at"),
    sqlite_with_rowid=False,
)

event = Table(
    "event",
    metadata,
    _id("stream", key=True),
    _number("number", key=True),
    _number("at"),
    _text("kind"),
    _id("job", optional=True),
    _bytes("data"),
    sqlite_with_rowid=False,
)
Index(
    "event_by_job",
    event.c.job,
    event.c.stream,
    event.c.number,
    sqlite_where=text("job IS NOT NULL"),
    postgresql_where=text("job IS NOT NULL"),
)

idempotency = Table(
    "idempotency",
    metadata,
    _id("namespace", key=True),
    _id("key", key=True),
    _text("digest"),
    _id("job"),
    _id("pool"),
    _text("error", optional=True),
    _number("created_at"),
    sqlite_with_rowid=False,
)
Index("idempotency_by_age", idempotency.c.pool, idempotency.c.created_at)

# Who may do what. Of a token's secret only a digest is kept; the audit is only ever appended to.
token = Table(
    "token",
    metadata,
    _id("id", key=True),
    _text("kind"),
    _text("name"),
    _text("role"),
    _id("namespace"),
    _bytes("digest"),
    _number("created_at"),
    _number("expires_at", optional=True),
    _number("used_at", optional=True),
    _id("pool"),
    sqlite_with_rowid=False,
)

enrolment = Table(
    "enrolment",
    metadata,
    _id("node", key=True),
    _text("name"),
    _number("enrolled_at"),
    _number("expires_at"),
    _id("pool"),
    sqlite_with_rowid=False,
)

audit = Table(
    "audit",
    metadata,
    _number("seq", key=True),
    _number("at"),
    _text("who"),
    _id("namespace"),
    _text("action"),
    _text("target"),
    _small("status"),
    _text("source"),
    sqlite_with_rowid=False,
)
Index("audit_by_age", audit.c.at)

# Webhooks that are owed, and how far the events were looked through for jobs' ends.
delivery = Table(
    "delivery",
    metadata,
    _id("pool", key=True),
    _number("number", key=True),
    _small("position", key=True),
    _id("job"),
    _text("outcome"),
    _text("state"),
    _small("attempts"),
    _number("next_at"),
    _text("message", optional=True),
    sqlite_with_rowid=False,
)
Index("delivery_by_job", delivery.c.job)
Index(
    "delivery_due",
    delivery.c.pool,
    delivery.c.next_at,
    sqlite_where=text("state = 'pending'"),
    postgresql_where=text("state = 'pending'"),
)

delivery_cursor = Table(
    "delivery_cursor",
    metadata,
    _id("pool", key=True),
    _number("number"),
    sqlite_with_rowid=False,
)

# Who may lead a pool, and which servers there are. No row of these fences a commit.
lease = Table(
    "lease",
    metadata,
    _id("pool", key=True),
    _id("holder"),
    _number("renewals"),
    _number("taken_at"),
    sqlite_with_rowid=False,
)

server = Table(
    "server",
    metadata,
    _id("id", key=True),
    _text("name"),
    _text("address"),
    _text("build"),
    _number("started_at"),
    _number("beats"),
    _number("lease_ms"),
    _text("files"),
    _text("coordination"),
    _text("pool"),
    sqlite_with_rowid=False,
)

# The latest is the oldest revision whose builds may use this schema (see upgrade.check_known).
compatibility = Table("compatibility", metadata, _id("oldest", key=True), sqlite_with_rowid=False)

# While there is a row, no server opens the store: it was moved, or restored from a backup.
closure = Table("closure", metadata, _text("reason", key=True), _number("at"), sqlite_with_rowid=False)

counter = Table(
    "counter",
    metadata,
    _id("name", key=True),
    _number("number"),
    sqlite_with_rowid=False,
)
