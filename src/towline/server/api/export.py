"""``/v1/events/export``: the event log as NDJSON, with what a simulation needs besides.

A header, the nodes and queues as they are now, and all events from a time on, in order; a submission
carries what of its job matters to a scheduler, and nothing of what it runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.params import QueryParameter
from litestar.response import Stream
from msgspec import UNSET, Struct, UnsetType, structs

from towline.core.rows import EventRow
from towline.errors import NotFound
from towline.model.document import to_document
from towline.model.job import Array, JobSpec, TaskSpec
from towline.model.units import rfc3339
from towline.model.views import EventView, NodeView, QueueView
from towline.server.api.service import MOST, OF_A_POOL, Service, service_of
from towline.server.events import PAGE

AnyRequest = Request[Any, Any, Any]
VERSION = 1
_encoder = msgspec.json.Encoder()
Since = Annotated[int, QueryParameter(ge=0, le=MOST)]


class Header(Struct, kw_only=True, tag="export", tag_field="kind"):
    """``events``: how many follow, at most."""

    version: int
    pool: str
    at: str
    events: int


class NodeLine(Struct, kw_only=True, tag="node", tag_field="kind"):
    node: NodeView


class QueueLine(Struct, kw_only=True, tag="queue", tag_field="kind"):
    queue: QueueView


class EventLine(EventView, kw_only=True):
    """``spec``: of a submission, the job as a job file, without what it runs."""

    spec: dict[str, Any] | UnsetType = UNSET


@get("/v1/events/export", media="application/x-ndjson", asks=OF_A_POOL)
async def export_events(request: AnyRequest, since_ms: Since = 0) -> Stream:
    """The event log as NDJSON, as a simulation reads it."""
    service = service_of(request)
    return Stream(
        _lines(service, since_ms),
        media_type="application/x-ndjson",
        headers={"Cache-Control": "no-store"},
    )


async def _lines(service: Service, since_ms: int) -> AsyncIterator[bytes]:
    _, newest = await service.store.counters(service.pool)
    after = await _number_before(service, since_ms, newest)
    nodes, queues, now_ms = service.leader.opinion(
        lambda pool: (pool.nodes_view(), pool.queues_view(), pool.state.now_ms)
    )
    head: list[Struct] = [
        Header(version=VERSION, pool=service.pool, at=rfc3339(now_ms), events=newest - after)
    ]
    head += [NodeLine(node=node) for node in nodes]
    head += [QueueLine(queue=queue) for queue in queues]
    yield _encoder.encode_lines(head)
    while after < newest:
        rows = await service.store.events(service.feed.stream, after, min(PAGE, newest - after))
        if not rows:
            return
        yield _encoder.encode_lines([await _event(service, row) for row in rows])
        after = rows[-1].number


async def _number_before(service: Service, since_ms: int, newest: int) -> int:
    """The number of the last event before a time: numbers rise with time, so half of them are left out
    with every look. Events that retention has deleted are skipped by the store."""
    lo, hi = 0, newest
    while lo < hi and since_ms:
        middle = (lo + hi) // 2
        rows = await service.store.events(service.feed.stream, middle, 1)
        if rows and rows[0].at < since_ms:
            lo = rows[0].number
        else:
            hi = middle
    return lo


async def _event(service: Service, row: EventRow) -> EventLine:
    view = service.feed.view(row)
    line = EventLine(cursor=view.cursor, at=view.at, kind=view.kind, job=view.job, data=view.data)
    if row.kind == "job.submitted" and row.job is not None:
        with contextlib.suppress(NotFound):  # deleted in this moment
            line.spec = to_document(scheduled_part((await service.facts.spec(row.job)).spec))
    return line


def scheduled_part(spec: JobSpec) -> JobSpec:
    """A job without what it runs: no images, commands, environments, mounts, secrets, labels or values."""
    return JobSpec(
        name=spec.name,
        tasks={name: _scheduled_part(task) for name, task in spec.tasks.items()},
        priority=spec.priority,
        queue=spec.queue,
    )


_KEPT = (
    "resources",
    "needs",
    "timeout_ms",
    "retries",
    "where",
    "prefer",
    "spread",
    "tolerate",
    "limit",
    "expect_ms",
)


def _scheduled_part(task: TaskSpec) -> TaskSpec:
    kept = {name: getattr(task, name) for name in _KEPT}
    array = None if task.array is None else Array(first=task.array.first, last=task.array.last)
    return structs.replace(TaskSpec(image="any"), array=array, **kept)
