"""The statements of the store, in SQLAlchemy Core; each driver compiles them once and keeps the text.

Values are bound by name (``:pool``). What an index's condition needs to be recognised stands in
the text, never in a parameter. Importing this module imports SQLAlchemy, which takes 0.2 s: do it late.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Delete,
    Select,
    Update,
    and_,
    delete,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from towline.store import codec
from towline.store.binding import ONE as _ONE
from towline.store.binding import ZERO as _ZERO
from towline.store.binding import Insert
from towline.store.binding import p as _p
from towline.store.codec import Layout
from towline.store.schema import (
    attempt,
    element,
    element_range,
    event,
    idempotency,
    job,
    metadata,
    node,
    pool,
    queue,
    sealed,
    spec,
    task,
)

_LIVE: ColumnElement[bool] = literal_column("attempt.state NOT IN ('finished', 'lost')")
ENDED_STATES = ("succeeded", "failed", "cancelled", "skipped")
_ENDED = element.c.state.in_([literal_column(f"'{state}'") for state in ENDED_STATES])

_FORGOTTEN: ColumnElement[str] = literal_column("'forgotten'")
_UNSUCCESSFUL = element.c.state.in_([literal_column(f"'{state}'") for state in ("failed", "cancelled")])


def _unfinished() -> ColumnElement[bool]:
    return and_(job.c.pool == _p("pool"), job.c.ended_at.is_(None))


def _unfinished_ids() -> Select[str]:
    return select(job.c.id).where(_unfinished())


def rows_of(layout: Layout[Any]) -> Select[*tuple[Any, ...]]:
    """All of a layout's ``read`` columns, in order, without a condition."""
    columns = metadata.tables[layout.table].c
    return select(*(columns[name] for name in layout.read))


# --- what a commit writes -------------------------------------------------------------------------
def upsert(insert: Insert, layout: Layout[Any]) -> Any:
    """Insert a row, or replace all of it but its key. Binds the layout's ``columns`` in order."""
    table = metadata.tables[layout.table]
    statement = insert(table).values({name: _p(name) for name in layout.columns})
    changed = {name: statement.excluded[name] for name in layout.columns if name not in layout.key}
    # Of two pools, the one in which a node is not forgotten has its row.
    where = None
    if layout is codec.NODE:
        where = or_(node.c.pool == statement.excluded.pool, node.c.state == _FORGOTTEN)
    return statement.on_conflict_do_update(index_elements=list(layout.key), set_=changed, where=where)


def append(insert: Insert, layout: Layout[Any]) -> Any:
    """Insert a row that must not be there yet."""
    table = metadata.tables[layout.table]
    return insert(table).values({name: _p(name) for name in layout.columns})


def fence() -> Update:
    """The first statement of every commit; a commit that changes no row here is void."""
    mine = and_(pool.c.id == _p("pool"), pool.c.term == _p("led_term"))
    after = {"commit_no": pool.c.commit_no + _ONE, "event_no": _p("events"), "job_seq": _p("jobs")}
    return update(pool).where(mine, pool.c.commit_no == _p("before")).values(after)


def raise_term(insert: Insert) -> Any:
    statement = insert(pool).values(id=_p("pool"), term=_ONE, commit_no=_ZERO, event_no=_ZERO, job_seq=_ZERO)
    raised = statement.on_conflict_do_update(index_elements=["id"], set_={"term": pool.c.term + _ONE})
    return raised.returning(pool.c.term)


# --- idempotency keys -----------------------------------------------------------------------------
_KEY = and_(idempotency.c.namespace == _p("namespace"), idempotency.c.key == _p("key"))
RESERVATION = ("namespace", "key", "digest", "job", "pool", "error")


def reserve(insert: Insert) -> Any:
    values = {name: _p(name) for name in (*RESERVATION, "created_at")}
    return insert(idempotency).values(values).on_conflict_do_nothing()


def reservation() -> Select[*tuple[Any, ...]]:
    return select(*(idempotency.c[name] for name in RESERVATION)).where(_KEY)


def release() -> Delete:
    return delete(idempotency).where(_KEY)


def answer() -> Update:
    where = and_(idempotency.c.namespace == _p("old_namespace"), idempotency.c.key == _p("old_key"))
    return update(idempotency).where(where).values(error=_p("new_error"))


# --- what is kept encrypted -----------------------------------------------------------------------
SEALED = ("namespace", "kind", "name", "data", "user", "version", "updated_at")
_SEAL_KEY = and_(
    sealed.c.namespace == _p("namespace"), sealed.c.kind == _p("kind"), sealed.c.name == _p("name")
)


def _sealed(insert: Insert) -> Any:
    return insert(sealed).values({name: _p(name) for name in SEALED if name != "version"} | {"version": _ONE})


def seal_add(insert: Insert) -> Any:
    return _sealed(insert).on_conflict_do_nothing(index_elements=["namespace", "kind", "name"])


def seal_put(insert: Insert) -> Any:
    statement = _sealed(insert)
    changed: dict[str, Any] = {name: statement.excluded[name] for name in ("data", "user", "updated_at")}
    changed["version"] = sealed.c.version + _ONE
    upserted = statement.on_conflict_do_update(index_elements=["namespace", "kind", "name"], set_=changed)
    return upserted.returning(sealed.c.version)


def seal_get() -> Select[*tuple[Any, ...]]:
    return select(*(sealed.c[name] for name in SEALED)).where(_SEAL_KEY)


def seal_list() -> Select[*tuple[Any, ...]]:
    """All of them: there are few, and who asks chooses."""
    order = (sealed.c.namespace, sealed.c.kind, sealed.c.name)
    return select(*(sealed.c[name] for name in SEALED)).order_by(*order)


def seal_delete() -> Delete:
    return delete(sealed).where(_SEAL_KEY)


# --- what a leader loads --------------------------------------------------------------------------
def counters() -> Select[*tuple[Any, ...]]:
    return select(pool.c.term, pool.c.commit_no, pool.c.event_no, pool.c.job_seq).where(
        pool.c.id == _p("pool")
    )


def unfinished(layout: Layout[Any]) -> Select[*tuple[Any, ...]]:
    """All rows below the pool's unfinished jobs, in order of their key."""
    columns = metadata.tables[layout.table].c
    order = [columns[name] for name in layout.key]
    return rows_of(layout).where(columns.job.in_(_unfinished_ids())).order_by(*order)


def unfinished_jobs() -> Select[*tuple[Any, ...]]:
    return rows_of(codec.JOB).where(_unfinished()).order_by(job.c.seq)


def placed_elements() -> Select[*tuple[Any, ...]]:
    return unfinished(codec.ELEMENT).where(~_ENDED)


def ended_elements() -> Select[*tuple[Any, ...]]:
    """(job, task, idx, state) in order of the key. The reader joins neighbours to ranges as they
    stream by: measured against window functions (gaps and islands), that takes a third of the time."""
    keys = [element.c.job, element.c.task, element.c.idx]
    where = and_(element.c.job.in_(_unfinished_ids()), _ENDED)
    return select(*keys, element.c.state).where(where).order_by(*keys)


def live_attempts() -> Select[*tuple[Any, ...]]:
    return unfinished(codec.ATTEMPT).where(_LIVE)


_NEWEST_ATTEMPT = and_(
    attempt.c.job == element.c.job,
    attempt.c.task == element.c.task,
    attempt.c.idx == element.c.idx,
    attempt.c.number == element.c.number,
)


def attempts_of_queued() -> Select[*tuple[Any, ...]]:
    """The newest attempts of elements that are queued again."""
    return (
        select(*(attempt.c[name] for name in codec.ATTEMPT.read))
        .select_from(element.join(attempt, _NEWEST_ATTEMPT))
        .where(element.c.job.in_(_unfinished_ids()), element.c.state == literal_column("'queued'"))
    )


# --- what running parts of a job again has to know ------------------------------------------------
def of_job(layout: Layout[Any]) -> Select[*tuple[Any, ...]]:
    """All rows below one job, in order of their key."""
    columns = metadata.tables[layout.table].c
    order = [columns[name] for name in layout.key]
    return rows_of(layout).where(columns.job == _p("job")).order_by(*order)


def ranges_of() -> Select[*tuple[Any, ...]]:
    return of_job(codec.RANGE)


def unsuccessful_elements() -> Select[*tuple[Any, ...]]:
    return of_job(codec.ELEMENT).where(_UNSUCCESSFUL)


def ended_of_job() -> Select[*tuple[Any, ...]]:
    """As ``ended_elements``, of one job."""
    keys = [element.c.job, element.c.task, element.c.idx]
    where = and_(element.c.job == _p("job"), _ENDED)
    return select(*keys, element.c.state).where(where).order_by(*keys)


def job_ended_at() -> Select[*tuple[Any, ...]]:
    return select(job.c.ended_at).where(job.c.id == _p("job"))


# --- facts ----------------------------------------------------------------------------------------
def job_by_id() -> Select[*tuple[Any, ...]]:
    return rows_of(codec.JOB).where(job.c.id == _p("job"))


_NEWEST = (job.c.seq.desc(), job.c.id.desc())


def visible_job() -> Select[*tuple[Any, ...]]:
    return job_by_id().where(job.c.namespace == _p("namespace"))


def newest_of_name() -> Select[*tuple[Any, ...]]:
    where = and_(job.c.namespace == _p("namespace"), job.c.name == _p("name"))
    return rows_of(codec.JOB).where(where).order_by(*_NEWEST).limit(_ONE).offset(_ZERO)


def jobs_of_prefix() -> Select[*tuple[Any, ...]]:
    inside = and_(job.c.id >= _p("prefix"), job.c.id < _p("prefix_end"))
    where = and_(job.c.namespace == _p("namespace"), inside)
    return rows_of(codec.JOB).where(where).order_by(*_NEWEST).limit(_p("count")).offset(_ZERO)


def newest_jobs(*, of_state: bool) -> Select[*tuple[Any, ...]]:
    """Jobs before that of ``before_seq`` and ``before_id``, newest first. Several states are asked for one
    by one: each is then the end of an index, however rare it is."""
    # The first condition is what an index is searched by.
    before = and_(
        job.c.seq <= _p("before_seq"), or_(job.c.seq < _p("before_seq"), job.c.id < _p("before_id"))
    )
    statement = rows_of(codec.JOB).where(job.c.namespace == _p("namespace"), before)
    if of_state:
        statement = statement.where(job.c.state == _p("state"))
    return statement.order_by(*_NEWEST).limit(_p("count")).offset(_ZERO)


def spec_of() -> Select[*tuple[Any, ...]]:
    return rows_of(codec.SPEC).where(spec.c.job == _p("job"))


def tasks_of() -> Select[*tuple[Any, ...]]:
    return rows_of(codec.TASK).where(task.c.job == _p("job")).order_by(task.c.task)


def elements_page() -> Select[*tuple[Any, ...]]:
    inside = and_(element.c.idx > _p("after"), element.c.idx <= _p("through"))
    where = and_(element.c.job == _p("job"), element.c.task == _p("task"), inside)
    return rows_of(codec.ELEMENT).where(where).order_by(element.c.idx)


def attempts_page() -> Select[*tuple[Any, ...]]:
    inside = and_(attempt.c.idx > _p("after"), attempt.c.idx <= _p("through"))
    where = and_(attempt.c.job == _p("job"), attempt.c.task == _p("task"), inside)
    return rows_of(codec.ATTEMPT).where(where).order_by(attempt.c.idx, attempt.c.number)


def ranges_page() -> Select[*tuple[Any, ...]]:
    touching = and_(element_range.c.hi > _p("after"), element_range.c.lo <= _p("through"))
    where = and_(element_range.c.job == _p("job"), element_range.c.task == _p("task"), touching)
    return rows_of(codec.RANGE).where(where).order_by(element_range.c.lo)


def first_failure() -> Select[*tuple[Any, ...]]:
    """Ended first by its newest attempt's end; one without a known end comes last."""
    failed = and_(element.c.job == _p("job"), element.c.state == literal_column("'failed'"))
    order = [attempt.c.finished_at.is_(None), attempt.c.finished_at, element.c.task, element.c.idx]
    joined = rows_of(codec.ELEMENT).select_from(element.outerjoin(attempt, _NEWEST_ATTEMPT))
    return joined.where(failed).order_by(*order).limit(_ONE).offset(_ZERO)


def attempt_by_key() -> Select[*tuple[Any, ...]]:
    which = and_(attempt.c.idx == _p("idx"), attempt.c.number == _p("number"))
    where = and_(attempt.c.job == _p("job"), attempt.c.task == _p("task"), which)
    return rows_of(codec.ATTEMPT).where(where)


def nodes_of() -> Select[*tuple[Any, ...]]:
    return rows_of(codec.NODE).where(node.c.pool == _p("pool")).order_by(node.c.id)


def nodes_by_id() -> Select[*tuple[Any, ...]]:
    return _nodes_there().where(node.c.id == _p("node"))


def nodes_by_name() -> Select[*tuple[Any, ...]]:
    return _nodes_there().where(node.c.name == _p("name"))


def _nodes_there() -> Select[*tuple[Any, ...]]:
    return select(node.c.id, node.c.pool).where(node.c.state != _FORGOTTEN).order_by(node.c.id)


def of_pool(layout: Layout[Any]) -> Select[*tuple[Any, ...]]:
    """All rows of a small table of the pool's own, in order of their key."""
    columns = metadata.tables[layout.table].c
    order = [columns[name] for name in layout.key]
    return rows_of(layout).where(columns.pool == _p("pool")).order_by(*order)


def delete_range() -> Delete:
    key = and_(element_range.c.job == _p("job"), element_range.c.task == _p("task"))
    return delete(element_range).where(key, element_range.c.lo == _p("lo"))


def delete_queue() -> Delete:
    return delete(queue).where(queue.c.pool == _p("pool"), queue.c.name == _p("name"))


def events_after(*, of_job: bool) -> Select[*tuple[Any, ...]]:
    statement = rows_of(codec.EVENT).where(event.c.stream == _p("stream"), event.c.number > _p("after"))
    if of_job:
        statement = statement.where(event.c.job == _p("job"))
    return statement.order_by(event.c.number).limit(_p("count")).offset(_ZERO)


# --- retention ------------------------------------------------------------------------------------
BELOW_A_JOB = (codec.ATTEMPT, codec.ELEMENT, codec.RANGE, codec.TASK, codec.SPEC)
"""What is deleted of a job before its own row, many rows first."""


def expired_jobs() -> Select[*tuple[Any, ...]]:
    where = and_(job.c.pool == _p("pool"), job.c.ended_at < _p("before_ms"))
    return select(job.c.id).where(where).order_by(job.c.ended_at).limit(_p("count")).offset(_ZERO)


def delete_below_job(layout: Layout[Any]) -> Delete:
    """Delete up to ``count`` rows of a job."""
    table = metadata.tables[layout.table]
    key = [table.c[name] for name in layout.key]
    some = select(*key).where(table.c.job == _p("job")).limit(_p("count")).offset(_ZERO)
    return delete(table).where(tuple_(*key).in_(some))


def delete_job() -> Delete:
    return delete(job).where(job.c.id == _p("job"))


def oldest_events() -> Select[*tuple[Any, ...]]:
    return (
        select(event.c.number, event.c.at)
        .where(event.c.stream == _p("stream"))
        .order_by(event.c.number)
        .limit(_p("count"))
        .offset(_ZERO)
    )


def delete_events() -> Delete:
    return delete(event).where(event.c.stream == _p("stream"), event.c.number <= _p("through"))


def delete_keys() -> Delete:
    """Keys older than ``before_ms`` whose job is gone, or never came to be."""
    key = [idempotency.c.namespace, idempotency.c.key]
    gone = ~select(job.c.id).where(job.c.id == idempotency.c.job).exists()
    old = and_(idempotency.c.pool == _p("pool"), idempotency.c.created_at < _p("before_ms"))
    some = select(*key).where(old, gone).limit(_p("count")).offset(_ZERO)
    return delete(idempotency).where(tuple_(*key).in_(some))
