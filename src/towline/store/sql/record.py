"""A job as running parts of it again has to know it, in one snapshot with its pool's counters."""

from __future__ import annotations

from towline.core.rows import JobRecord
from towline.store import codec, statements
from towline.store.sql import facts
from towline.store.sql.loading import Joined
from towline.store.sql.plans import Ask, Plan, first, rows


def record(pool: str, which: str, namespace: str, key: str | None) -> Plan[JobRecord | None]:
    """None where there is no such job. Raises Damaged."""
    found = yield from facts.job(which)
    if found is None:
        return None
    term, _, event_no, _ = yield from facts.counters(pool)
    of = {"job": which}
    ended = Joined()
    yield Ask(statements.ended_of_job, of, stream=ended.add)
    return JobRecord(
        term=term,
        event_no=event_no,
        job=found[0],
        spec=found[1],
        tasks=(yield from facts.tasks(which)),
        ended=ended.close(),
        ranges=(yield from rows(codec.RANGE, statements.ranges_of, of)),
        elements=(yield from rows(codec.ELEMENT, statements.unsuccessful_elements, of)),
        taken=None if key is None else (yield from _digest(namespace, key)),
    )


def _digest(namespace: str, key: str) -> Plan[str | None]:
    found = yield from first(statements.reservation, {"namespace": namespace, "key": key})
    return None if found is None else str(found[statements.RESERVATION.index("digest")])
