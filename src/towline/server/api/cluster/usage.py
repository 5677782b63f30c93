"""``/v1/usage``: what running elements and their nodes use at the moment, asked of the nodes."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from litestar import Request, get
from litestar.params import FromQuery, Parameter

from towline.core.commands import attempt_key
from towline.errors import NotFound, RequestError
from towline.model.job import TaskSpec
from towline.model.views import ElementUsageView, NodeUsageView, UsageView
from towline.server.api.service import MOST, OF_ALL_POOLS, Service, service_of
from towline.wire.usage import AttemptUsage, ReadUsage, UsageAnswer

AnyRequest = Request[Any, Any, Any]


@get("/v1/usage", asks=OF_ALL_POOLS)
async def show_usage(
    request: AnyRequest,
    job: FromQuery[str | None] = None,
    task: FromQuery[str | None] = None,
    index: Annotated[int | None, Parameter(ge=0, le=MOST)] = None,
) -> UsageView:
    """Counters as they stand: two answers, compared, give the CPU in between."""
    service = service_of(request)
    answers = await service.gateway.read_usage(await _order(service, job, task, index))
    jobs: dict[str, _Job | None] = {}
    elements: list[ElementUsageView] = []
    for _, node, answer in answers:
        for usage in answer.attempts:
            job_id = attempt_key(usage.attempt)[0]
            if job_id not in jobs:
                jobs[job_id] = await _job(service, job_id)
            found = jobs[job_id]
            if found is not None:
                elements.append(_element(usage, node, found))
    return UsageView(nodes=[_node(*answer) for answer in answers], elements=elements)


async def _order(service: Service, job: str | None, task: str | None, index: int | None) -> ReadUsage:
    """Raises NotFound, RequestError."""
    if job is None:
        if task is not None or index is not None:
            raise RequestError("task and index are of a job: name it too.")
        return ReadUsage(request=0)
    row = await service.facts.find(job)
    if task is None:
        if index is not None:
            raise RequestError("index is of a task: name it too.")
        return ReadUsage(request=0, job=row.id)
    of = await service.facts.task_row(row, task)
    if index is not None and not of.first <= index <= of.last:
        raise NotFound(f"Task {task!r} has no element {index}: its indexes are {of.first} to {of.last}.")
    return ReadUsage(request=0, job=row.id, task=of.task, index=-1 if index is None else index)


class _Job(NamedTuple):
    """``tasks`` in the order of their positions."""

    id: str
    name: str
    tasks: list[tuple[str, TaskSpec]]


async def _job(service: Service, job: str) -> _Job | None:
    """None where the store has no such job (its attempts are about to be ended), or it is of another
    namespace."""
    if not await service.facts.owns(job):
        return None
    try:
        row = await service.facts.spec(job)
    except NotFound:
        return None
    return _Job(job, row.spec.name, list(row.spec.tasks.items()))


def _element(usage: AttemptUsage, node: str, of: _Job) -> ElementUsageView:
    _, position, index, number = attempt_key(usage.attempt)
    task, spec = of.tasks[position]
    return ElementUsageView(
        name=f"{of.name}/{task}" + (f".{index}" if spec.array is not None else ""),
        job=of.id,
        task=task,
        index=index,
        attempt=number,
        node=node,
        run_seconds=None if usage.ran_ms is None else usage.ran_ms / 1000,
        cpu_seconds=None if usage.cpu_us is None else usage.cpu_us / 1e6,
        cpu_limit=spec.resources.cpu_milli / 1000,
        memory_bytes=usage.memory_bytes,
        peak_memory_bytes=usage.peak_memory_bytes,
        memory_limit_bytes=spec.resources.memory_bytes,
        pids=usage.pids,
        output_bytes=usage.output_bytes,
    )


def _node(node: str, name: str, answer: UsageAnswer) -> NodeUsageView:
    return NodeUsageView(
        id=node,
        name=name,
        clock_seconds=answer.clock_us / 1e6,
        cpus=answer.cpus,
        cpu_seconds=answer.busy_us / 1e6,
        load1=answer.load1,
        memory_bytes=answer.memory_bytes,
        memory_used_bytes=answer.memory_used_bytes,
        elements=len(answer.attempts),
        error=answer.error,
    )
