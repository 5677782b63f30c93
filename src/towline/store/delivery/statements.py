"""The statements for webhooks that are owed; see store/statements.py."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Delete, Select, Update, delete, select, update

from towline.store.binding import ZERO as _ZERO
from towline.store.binding import Insert
from towline.store.binding import p as _p
from towline.store.schema import delivery, delivery_cursor

DELIVERY = tuple(column.name for column in delivery.columns)
KEY = ("pool", "number", "position")


def cursor_get() -> Select[int]:
    return select(delivery_cursor.c.number).where(delivery_cursor.c.pool == _p("which"))


def cursor_put(insert: Insert) -> Any:
    statement = insert(delivery_cursor).values(pool=_p("pool"), number=_p("number"))
    return statement.on_conflict_do_update(
        index_elements=["pool"], set_={"number": statement.excluded["number"]}
    )


def delivery_add(insert: Insert) -> Any:
    statement = insert(delivery).values({name: _p(name) for name in DELIVERY})
    return statement.on_conflict_do_nothing(index_elements=list(KEY))


def delivery_put() -> Update:
    key = (delivery.c[name] == _p(f"key_{name}") for name in KEY)
    changed = ("state", "attempts", "next_at", "message")
    return update(delivery).where(*key).values({name: _p(name) for name in changed})


def delivery_due() -> Select[*tuple[Any, ...]]:
    rows = select(*(delivery.c[name] for name in DELIVERY))
    due = (delivery.c.pool == _p("which"), delivery.c.state == _p("pending"), delivery.c.next_at <= _p("now"))
    order = (delivery.c.next_at, delivery.c.number, delivery.c.position)
    return rows.where(*due).order_by(*order).limit(_p("count")).offset(_ZERO)


def delivery_of() -> Select[*tuple[Any, ...]]:
    rows = select(*(delivery.c[name] for name in DELIVERY)).where(delivery.c.job == _p("which"))
    return rows.order_by(delivery.c.number, delivery.c.position)


def delivery_expire() -> Delete:
    return delete(delivery).where(delivery.c.state != _p("pending"), delivery.c.next_at < _p("before"))
