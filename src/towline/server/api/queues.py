"""``/v1/queues``: make, change, delete and look at queues; the priority of a job; a plan."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Router, delete, get, post, put
from litestar.params import FromPath, QueryParameter
from msgspec import UNSET, Struct, UnsetType

from towline.core.commands import DeleteQueue, SetPriority, SetQueue
from towline.errors import InvalidDocument, Problem, RequestError
from towline.model.units import parse_bytes, parse_cpu
from towline.model.views import JobView, PlanView, QueueView
from towline.server.api.service import OF_A_POOL, service_of
from towline.server.intake import PREPARED, Submission, prepared_from

AnyRequest = Request[Any, Any, Any]
Only = Annotated[Literal["new", "existing"] | None, QueryParameter(name="only")]
Given = dict[str, int | float | str | None]
MAX_PIDS = 2**60


class QueueBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays as it is. Amounts are written as in a job file (``cpu: 0.5``,
    ``memory: 8Gi``, ``gpu: 2``, ``pids: 100``); null takes one away."""

    parent: str | UnsetType | None = UNSET
    weight: float | UnsetType = UNSET
    guaranteed: Given | UnsetType = UNSET
    maximum: Given | UnsetType = UNSET
    max_priority: int | UnsetType = UNSET
    max_active: int | UnsetType | None = UNSET


class PriorityBody(Struct, kw_only=True, forbid_unknown_fields=True):
    priority: int


class QueueList(Struct, kw_only=True):
    queues: list[QueueView]


@get("/v1/queues", asks=OF_A_POOL)
async def list_queues(request: AnyRequest) -> QueueList:
    """All queues of a pool."""
    return QueueList(queues=service_of(request).leader.opinion(lambda pool: pool.queues_view()))


@get("/v1/queues/{name:str}", asks=OF_A_POOL)
async def show_queue(request: AnyRequest, name: FromPath[str]) -> QueueView:
    """One queue."""
    return service_of(request).leader.opinion(lambda pool: pool.queue_view(name))


@put("/v1/queues/{name:str}", body=QueueBody, asks=OF_A_POOL)
async def set_queue(request: AnyRequest, name: FromPath[str], only: Only = None) -> QueueView:
    """Make a queue, or change what is given of one."""
    body = await decoded(request, QueueBody)
    service = service_of(request)
    await service.leader.ask(
        SetQueue(
            name=name,
            only=only,
            parent=body.parent,
            weight_milli=UNSET if body.weight is UNSET else _milli(body.weight),
            guaranteed=_amounts("guaranteed", body.guaranteed),
            maximum=_amounts("maximum", body.maximum),
            max_priority=body.max_priority,
            max_active=body.max_active,
        )
    )
    return service.leader.opinion(lambda pool: pool.queue_view(name))


@delete("/v1/queues/{name:str}", asks=OF_A_POOL)
async def delete_queue(request: AnyRequest, name: FromPath[str]) -> None:
    """Remove a queue that has no jobs and none below it."""
    await service_of(request).leader.ask(DeleteQueue(name=name))


@post("/v1/jobs/{job:str}/priority", status_code=200, body=PriorityBody)
async def set_priority(request: AnyRequest, job: FromPath[str]) -> JobView:
    """Change the priority of a job that has not ended."""
    body = await decoded(request, PriorityBody)
    service = service_of(request)
    row = await service.find(job)
    await service.leader.ask(SetPriority(job=row.id, priority=body.priority))
    return await service.facts.job(await service.facts.find(row.id), 0)


@post("/v1/plan", status_code=200, body=Submission)
async def plan(request: AnyRequest) -> PlanView:
    """Where everything of a job would go now. The body is that of a submission, and refused where that
    would be; nothing is kept."""
    service = service_of(request)
    prepared = request.scope["state"].get(PREPARED) or await prepared_from(await request.body())
    await service.intake.check(prepared)
    view = service.leader.opinion(lambda pool: pool.plan(prepared.spec, service.namespace))
    view.pool = service.pool
    return view


async def decoded(request: AnyRequest, kind: type[Any]) -> Any:
    """The body of a request. Raises RequestError."""
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RequestError(f"the request's body does not fit: {error}") from None


def _milli(weight: float) -> int:
    return round(min(max(weight, -1.0), 2.0**40) * 1000)


def _amounts(field: str, given: Given | UnsetType) -> dict[str, int | None] | UnsetType:
    if given is UNSET:
        return UNSET
    found: dict[str, int | None] = {}
    problems: list[Problem] = []
    for name, value in given.items():
        try:
            found[name] = None if value is None or value == "none" else _amount(name, value)
        except ValueError as error:
            problems.append(Problem(f"{field}.{name}", f"{value!r}: {error}", "or none, to take it away"))
    if problems:
        raise InvalidDocument(problems)
    return found


def _amount(name: str, value: float | str) -> int:
    if str(value).strip() in ("0", "0.0"):
        return 0  # of a maximum: nothing at all
    if name in ("cpu", "gpu"):
        try:
            return parse_cpu(value)
        except ValueError as error:
            raise ValueError(str(error).replace("cpu", name)) from None
    if name == "memory":
        return parse_bytes(value)
    if not str(value).isdecimal() or int(value) > MAX_PIDS:
        raise ValueError("write a whole number such as 1000")
    return int(value)


queues_router = Router(
    "/",
    route_handlers=[list_queues, show_queue, set_queue, delete_queue, set_priority, plan],
)
