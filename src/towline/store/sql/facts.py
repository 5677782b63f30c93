"""The facts that any server reads, as plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from towline.core.rows import AttemptRow, ElementRow, EventRow, JobRow, NodeRow, SpecRow, TaskRow
from towline.store import codec, statements
from towline.store.port import ElementPage, Reservation, Sealed
from towline.store.sql.plans import Ask, Cells, Plan, first, rows

MAX_SEQ = 2**63 - 1
_MOST_OF_A_PREFIX = 10


def find_jobs(namespace: str, argument: str) -> Plan[list[JobRow]]:
    values = {"namespace": namespace, "job": argument, "name": argument}
    for make in (statements.visible_job, statements.newest_of_name):
        found = yield from rows(codec.JOB, make, values)
        if found:
            return found
    if not argument:
        return []
    # Bytes order text here, and no character is above this one.
    values |= {"prefix": argument, "prefix_end": argument + "\U0010ffff"}
    return (yield from rows(codec.JOB, statements.jobs_of_prefix, values | {"count": _MOST_OF_A_PREFIX}))


def jobs(
    namespace: str, before: tuple[int, str] | None, limit: int, states: Sequence[str]
) -> Plan[list[JobRow]]:
    seq, id = before or (MAX_SEQ, "")
    values: dict[str, Any] = {"namespace": namespace, "before_seq": seq, "before_id": id, "count": limit}
    if not states:
        return (yield from rows(codec.JOB, statements.newest_jobs, values, of_state=False))
    found: list[JobRow] = []
    for state in sorted(set(states)):
        one = values | {"state": state}
        found += yield from rows(codec.JOB, statements.newest_jobs, one, of_state=True)
    return sorted(found, key=lambda row: (row.seq, row.id), reverse=True)[:limit]


def job(which: str) -> Plan[tuple[JobRow, SpecRow] | None]:
    found = yield from rows(codec.JOB, statements.job_by_id, {"job": which})
    specs = yield from rows(codec.SPEC, statements.spec_of, {"job": which})
    return (found[0], specs[0]) if found and specs else None


def tasks(which: str) -> Plan[list[TaskRow]]:
    return (yield from rows(codec.TASK, statements.tasks_of, {"job": which}))


def elements(which: str, task: int, after: int, through: int) -> Plan[ElementPage]:
    values = {"job": which, "task": task, "after": after, "through": through}
    return ElementPage(
        elements=(yield from rows(codec.ELEMENT, statements.elements_page, values)),
        ranges=(yield from rows(codec.RANGE, statements.ranges_page, values)),
        attempts=(yield from rows(codec.ATTEMPT, statements.attempts_page, values)),
    )


def first_failure(which: str) -> Plan[ElementRow | None]:
    found = yield from rows(codec.ELEMENT, statements.first_failure, {"job": which})
    return next(iter(found), None)


def attempt(which: str, task: int, index: int, number: int) -> Plan[AttemptRow | None]:
    values = {"job": which, "task": task, "idx": index, "number": number}
    return next(iter((yield from rows(codec.ATTEMPT, statements.attempt_by_key, values))), None)


def nodes(pool: str) -> Plan[list[NodeRow]]:
    return (yield from rows(codec.NODE, statements.nodes_of, {"pool": pool}))


def find_nodes(name: str) -> Plan[list[tuple[str, str]]]:
    for make, values in (
        (statements.nodes_by_id, {"node": name}),
        (statements.nodes_by_name, {"name": name}),
    ):
        found = [(str(id), str(pool)) for id, pool in (yield Ask(make, values))]
        if found:
            return found
    return []


def events(stream: str, after: int, limit: int, which: str | None) -> Plan[list[EventRow]]:
    values: dict[str, Any] = {"stream": stream, "after": after, "count": limit}
    if which is None:
        return (yield from rows(codec.EVENT, statements.events_after, values, of_job=False))
    return (yield from rows(codec.EVENT, statements.events_after, values | {"job": which}, of_job=True))


def counters(pool: str) -> Plan[tuple[int, int, int, int]]:
    """(term, commit_no, event_no, job_seq); zeros where there is no such pool."""
    found = yield from first(statements.counters, {"pool": pool})
    if found is None:
        return (0, 0, 0, 0)
    term, commit_no, event_no, job_seq = found
    return term, commit_no, event_no, job_seq


def expired_jobs(pool: str, before_ms: int, limit: int) -> Plan[list[str]]:
    values = {"pool": pool, "before_ms": before_ms, "count": limit}
    return [str(cells[0]) for cells in (yield Ask(statements.expired_jobs, values))]


def reserved(namespace: str, key: str) -> Plan[Reservation | None]:
    found = yield from first(statements.reservation, {"namespace": namespace, "key": key})
    return None if found is None else Reservation(**dict(zip(statements.RESERVATION, found, strict=True)))


# --- what is kept encrypted -----------------------------------------------------------------------
def seal_get(namespace: str, kind: str, name: str) -> Plan[Sealed | None]:
    found = yield from first(statements.seal_get, {"namespace": namespace, "kind": kind, "name": name})
    return None if found is None else _sealed(found)


def seal_list(namespace: str | None, kind: str | None) -> Plan[list[Sealed]]:
    found = [_sealed(cells) for cells in (yield Ask(statements.seal_list, {}))]
    return [row for row in found if namespace in (None, row.namespace) and kind in (None, row.kind)]


def _sealed(cells: Cells) -> Sealed:
    return Sealed(**dict(zip(statements.SEALED, cells, strict=True)))
