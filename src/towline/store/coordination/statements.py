"""The statements for servers and leases; see store/statements.py."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Delete, Select, Update, cast, delete, func, select, update

from towline.store.binding import ONE as _ONE
from towline.store.binding import ZERO as _ZERO
from towline.store.binding import Insert
from towline.store.binding import p as _p
from towline.store.schema import counter, enrolment, lease, pool, sealed, server, token

SERVER = tuple(column.name for column in server.columns)
SHARED = {"counter": "shared"}
"""Counts the changes of what servers hold in memory: tokens, enrolments and sealed values."""


def pool_create(insert: Insert) -> Any:
    values = {"term": _ZERO, "commit_no": _ZERO, "event_no": _ZERO, "job_seq": _ZERO}
    return insert(pool).values(id=_p("pool"), **values).on_conflict_do_nothing(index_elements=["id"])


def lease_read() -> Select[*tuple[Any, ...]]:
    """(pool, term, event_no, holder, renewals, taken_at); the last three are null of a lease never taken."""
    both = pool.outerjoin(lease, lease.c.pool == pool.c.id)
    columns = (pool.c.id, pool.c.term, pool.c.event_no, lease.c.holder, lease.c.renewals, lease.c.taken_at)
    return select(*columns).select_from(both).order_by(pool.c.id)


def lease_take(insert: Insert) -> Any:
    """``renewals`` is one more than what is expected to be there."""
    names = ("pool", "holder", "renewals", "taken_at")
    statement = insert(lease).values({name: _p(name) for name in names})
    new = statement.excluded
    unchanged = (lease.c.holder == _p("expected"), lease.c.renewals + _ONE == new.renewals)
    changed = {name: new[name] for name in names[1:]}
    return statement.on_conflict_do_update(
        index_elements=["pool"], set_=changed, where=unchanged[0] & unchanged[1]
    )


def lease_renew() -> Update:
    own = (lease.c.pool == _p("which"), lease.c.holder == _p("owner"))
    return update(lease).where(*own).values(renewals=lease.c.renewals + _ONE)


def server_put(insert: Insert) -> Any:
    statement = insert(server).values({name: _p(name) for name in SERVER})
    changed = {name: statement.excluded[name] for name in SERVER if name != "id"}
    return statement.on_conflict_do_update(index_elements=["id"], set_=changed)


def server_list() -> Select[*tuple[Any, ...]]:
    return select(*(server.c[name] for name in SERVER)).order_by(server.c.id)


def server_delete() -> Delete:
    return delete(server).where(server.c.id == _p("which"))


def count_up(insert: Insert) -> Any:
    """In the transaction of what it counts, as its last statement: whoever counts next waits for its end."""
    statement = insert(counter).values(name=_p("counter"), number=_ONE)
    return statement.on_conflict_do_update(index_elements=["name"], set_={"number": counter.c.number + _ONE})


def shared_state() -> Select[*tuple[Any, ...]]:
    """One row: how many changes there were; and for those of servers that do not count them yet, how many
    there are of each kind, and the latest of their times and versions."""
    kinds = (
        (func.count(token.c.id), func.max(token.c.created_at), func.count(token.c.used_at)),
        (func.count(enrolment.c.node), func.max(enrolment.c.enrolled_at), func.max(enrolment.c.expires_at)),
        (func.count(sealed.c.name), func.max(sealed.c.updated_at), func.sum(sealed.c.version)),
    )
    # One look at each table: there may be very many nodes, and every server looks every second.
    seen = [_seen(*parts).subquery() for parts in kinds]
    counted = select(counter.c.number).where(counter.c.name == _p("counter")).scalar_subquery()
    return select(func.coalesce(counted, _ZERO), *(column for kind in seen for column in kind.c))


def _seen(*parts: Any) -> Select[*tuple[Any, ...]]:
    whole = (cast(func.coalesce(part, _ZERO), BigInteger) for part in parts)
    return select(*(part.label(f"n{at}") for at, part in enumerate(whole)))
