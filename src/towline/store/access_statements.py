"""The statements for tokens, enrolled nodes and the audit; see statements.py."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Delete,
    Select,
    Update,
    delete,
    func,
    select,
    update,
)

from towline.store.binding import ZERO as _ZERO
from towline.store.binding import Insert
from towline.store.binding import p as _p
from towline.store.schema import audit, enrolment, token

TOKEN = tuple(column.name for column in token.columns)
ENROLMENT = tuple(column.name for column in enrolment.columns)
AUDIT = tuple(column.name for column in audit.columns)


def token_put(insert: Insert) -> Any:
    return insert(token).values({name: _p(name) for name in TOKEN})


def token_list() -> Select[*tuple[Any, ...]]:
    return select(*(token.c[name] for name in TOKEN)).order_by(token.c.id)


def token_use() -> Update:
    unused = (token.c.id == _p("token"), token.c.used_at.is_(None))
    return update(token).where(*unused).values(used_at=_p("at"))


def token_delete() -> Delete:
    return delete(token).where(token.c.id == _p("token"))


def enrolment_put(insert: Insert) -> Any:
    statement = insert(enrolment).values({name: _p(name) for name in ENROLMENT})
    changed = {name: statement.excluded[name] for name in ENROLMENT if name != "node"}
    return statement.on_conflict_do_update(index_elements=["node"], set_=changed)


def enrolment_renew() -> Update:
    same = (enrolment.c.node == _p("which"), enrolment.c.enrolled_at == _p("was"))
    return update(enrolment).where(*same).values(enrolled_at=_p("at"), expires_at=_p("until"))


def enrolment_list() -> Select[*tuple[Any, ...]]:
    return select(*(enrolment.c[name] for name in ENROLMENT)).order_by(enrolment.c.node)


def enrolment_delete() -> Delete:
    return delete(enrolment).where(enrolment.c.node == _p("which"))


def audit_append(insert: Insert) -> Any:
    return insert(audit).values({name: _p(name) for name in AUDIT})


def audit_last() -> Select[int]:
    return select(func.coalesce(func.max(audit.c.seq), _ZERO))


def audit_list() -> Select[*tuple[Any, ...]]:
    rows = select(*(audit.c[name] for name in AUDIT)).where(audit.c.seq < _p("before"))
    return rows.order_by(audit.c.seq.desc()).limit(_p("count")).offset(_ZERO)


def audit_expire() -> Delete:
    return delete(audit).where(audit.c.at < _p("before_ms"))
