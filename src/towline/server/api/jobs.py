"""``/v1/jobs``: submit, look at, wait for, cancel, retry and explain."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

from litestar import Request, Response, Router, get, post
from litestar.params import FromPath, FromQuery, QueryParameter
from msgspec import Struct

from towline.core.commands import Cancel, Tick
from towline.core.pool import Pool
from towline.core.rows import JobRow
from towline.errors import NotFound, RequestError
from towline.model.document import to_document
from towline.model.states import ENDED, JobState
from towline.model.views import ElementView, JobView, RetryView, TaskView, WhyView
from towline.server.api.queues import decoded
from towline.server.api.service import Service, service_of
from towline.server.events import MAX_DIGITS
from towline.server.facts import has_ended
from towline.server.intake import MAX_KEY_LENGTH, PREPARED, Submission
from towline.server.pulls import add_pulls, explain_pulls

AnyRequest = Request[Any, Any, Any]
Limit = Annotated[int, QueryParameter(ge=1, le=1000)]
ElementLimit = Annotated[int, QueryParameter(ge=1, le=10_000)]
ElementBudget = Annotated[int, QueryParameter(ge=0, le=10_000)]
StateFilter = Annotated[str | None, QueryParameter(name="state")]
Seconds = Annotated[float, QueryParameter(ge=0, le=600)]


_CURSOR = re.compile(rf"(?P<seq>[0-9]{{1,{MAX_DIGITS}}})(\.(?P<id>[!-~]{{1,200}}))?")
RETRIED_SHOWN = 1_000


class JobPage(Struct, kw_only=True):
    jobs: list[JobView]
    next_cursor: str | None


class CancelBody(Struct, kw_only=True, forbid_unknown_fields=True):
    task: str | None = None
    index: int | None = None
    kill: bool = False


class ElementName(Struct, kw_only=True, forbid_unknown_fields=True):
    task: str
    index: int | None = None


class RetryBody(Struct, kw_only=True, forbid_unknown_fields=True):
    elements: list[ElementName] = []
    failed: bool = False


@post(
    "/",
    body=Submission,
    statuses=(200,),
    reads={"Idempotency-Key": "A repeat with the same key does nothing more"},
)
async def submit(request: AnyRequest) -> Response[JobView]:
    """Submit a job: once for each Idempotency-Key."""
    service = service_of(request)
    body = await request.body()
    prepared = request.scope["state"].get(PREPARED)
    job, new = await service.intake.submit(body, request.headers.get("idempotency-key"), prepared)
    view = await service.facts.job(await service.facts.find(job), 0)
    return Response(view, status_code=201 if new else 200)


@get("/")
async def list_jobs(
    request: AnyRequest, limit: Limit = 50, cursor: FromQuery[str | None] = None, in_state: StateFilter = None
) -> JobPage:
    """Jobs without their tasks, newest first."""
    service = service_of(request)
    states = in_state.split(",") if in_state else []
    for unknown in set(states) - set(JobState):
        raise RequestError(f"There is no state {unknown!r}: the states of jobs are {', '.join(JobState)}.")
    before = None if cursor is None else _position(cursor)
    rows = await service.store.jobs(service.namespace, before, limit + 1, states)
    shown = rows[:limit]
    told = service.pulls()
    views = [
        add_pulls(await service.facts.summary(row), told, await _task_names(service, row)) for row in shown
    ]
    next_cursor = f"{shown[-1].seq}.{shown[-1].id}" if len(rows) > limit else None
    return JobPage(jobs=views, next_cursor=next_cursor)


def _position(cursor: str) -> tuple[int, str]:
    """The (seq, id) of the last job that a page showed; earlier versions gave the seq alone. Raises
    RequestError."""
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise RequestError(f"{cursor[:200]!r} is no cursor of jobs: leave it out to start at the newest.")
    return int(found["seq"]), found["id"] or ""


@get("/{job:str}")
async def show(request: AnyRequest, job: FromPath[str], elements: ElementBudget = 1000) -> JobView:
    """One job, with so many of its elements."""
    service = service_of(request)
    row = await service.facts.find(job)
    view = await service.facts.job(row, elements)
    view.webhooks = await service.facts.deliveries(row)
    return add_pulls(view, service.pulls(), await _task_names(service, row))


async def _task_names(service: Service, row: JobRow) -> list[str]:
    return list((await service.facts.spec(row.id)).spec.tasks)


@get("/{job:str}/spec")
async def show_spec(request: AnyRequest, job: FromPath[str]) -> dict[str, Any]:
    """The job file as it was taken: parameters filled in, sources of mounts absolute."""
    facts = service_of(request).facts
    row = await facts.find(job)
    return to_document((await facts.spec(row.id)).spec)


@get("/{job:str}/tasks/{task:str}")
async def show_task(
    request: AnyRequest,
    job: FromPath[str],
    task: FromPath[str],
    cursor: FromQuery[str | None] = None,
    limit: ElementLimit = 1000,
    in_state: StateFilter = None,
) -> TaskView:
    """A task with a page of its elements."""
    facts = service_of(request).facts
    return await facts.page(await facts.find(job), task, cursor, limit, in_state)


@get("/{job:str}/wait")
async def wait(request: AnyRequest, job: FromPath[str], timeout_s: Seconds = 30.0) -> JobView:
    """The job when it has ended, at the latest after timeout_s."""
    service = service_of(request)
    row = await service.find(job)
    await until_ended(service, row, timeout_s)
    return await service.facts.job(await service.facts.find(row.id), 0)


async def until_ended(service: Service, row: JobRow, timeout_s: float) -> None:
    """Return when the job has ended, at the latest after ``timeout_s``."""
    reader = service.feed.subscribe(row.id)
    try:
        # Looked at again after subscribing: an end in between would be told to nobody.
        if has_ended(await service.facts.find(row.id)):
            return
        async with asyncio.timeout(timeout_s):
            while not reader.ended:
                await reader.woken.wait()
                reader.take()
                if reader.overflow:
                    return
    except TimeoutError:
        return
    finally:
        service.feed.unsubscribe(reader)


@post("/{job:str}/cancel", status_code=200, body=CancelBody)
async def cancel(request: AnyRequest, job: FromPath[str]) -> JobView:
    """Cancel a job, a task of it or one element."""
    service = service_of(request)
    body = await decoded(request, CancelBody)
    if body.index is not None and body.task is None:
        raise RequestError("index is given without task: say which task's element is meant.")
    row = await service.find(job)
    if not has_ended(row) or row.state == JobState.QUARANTINED:
        command = Cancel(job=row.id, task=body.task, index=body.index, kill=body.kill)
        try:
            await service.leader.ask(command)
        except NotFound:
            # It may have ended since it was looked up: then there is nothing left to cancel.
            if not has_ended(await service.facts.find(row.id)):
                raise
    return await service.facts.job(await service.facts.find(row.id), 0)


@post(
    "/{job:str}/retry",
    status_code=200,
    body=RetryBody,
    reads={"Idempotency-Key": "A repeat with the same key does nothing more"},
)
async def retry(request: AnyRequest, job: FromPath[str]) -> RetryView:
    """Run again what did not succeed."""
    service = service_of(request)
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= MAX_KEY_LENGTH:
        raise RequestError(f"Idempotency-Key is 1 to {MAX_KEY_LENGTH} characters long.")
    body = await decoded(request, RetryBody)
    row = await service.find(job)
    cursor = service.feed.cursor((await service.store.counters(service.pool))[1])
    named = tuple((element.task, element.index) for element in body.elements)
    names = await service.retrier.retry(row, named, body.failed, key)
    view = await service.facts.job(await service.facts.find(row.id), 0)
    return RetryView(job=view, retried=list(names[:RETRIED_SHOWN]), ranges=len(names), cursor=cursor)


@get("/{job:str}/why")
async def why(
    request: AnyRequest,
    job: FromPath[str],
    task: FromQuery[str | None] = None,
    index: FromQuery[int | None] = None,
) -> WhyView:
    """Why something is as it is: what it waits for, or how it ended."""
    service = service_of(request)
    row = await service.find(job)
    while row.state == JobState.RUNNING:
        view = _opinion(service, row, task, index)
        if view is not None and (task is None or view.state not in ENDED):
            return explain_pulls(view, service.pulls(), await _task_names(service, row))
        # It has ended for the leader. What is told of that is in the store once the leader's next commit is.
        await service.leader.ask(Tick())
        row = await service.facts.find(row.id)
        if view is not None:
            ended = await explain_ended(service, row, task, index)
            if ended.state == view.state:  # else it runs again by now
                return ended
    return await explain_ended(service, row, task, index)


def _opinion(service: Service, row: JobRow, task: str | None, index: int | None) -> WhyView | None:
    """None where the leader's memory has the job no more. Raises NotFound for a task or an element that it
    does not have."""

    def explain(pool: Pool) -> WhyView | None:
        return pool.explain(row.id, task, index) if row.id in pool.state.jobs else None

    return service.leader.opinion(explain)


async def explain_ended(service: Service, row: JobRow, task: str | None, index: int | None) -> WhyView:
    """Why something of a job ended as it did: facts, not opinions."""
    what, found = f"Job {row.name}", row.state
    message = (await service.facts.job(row, 0)).message
    details: list[str] = []
    placed: str | None = None
    if task is not None:
        page = await service.facts.page(row, task, str(index - 1) if index is not None else None, 1, None)
        what, found, message = f"Task {task}", page.state, page.message
        if index is not None:
            element = next((e for e in page.elements if e.index == index), None)
            if element is None:
                raise NotFound(f"Task {task!r} of job {row.id} has no element {index}.")
            what, found, message = f"Element {task}.{index}", element.state, element.message
        if index is not None or page.size == 1:
            placed = _placed(page.elements)
    elif (failure := await service.store.first_failure(row.id)) is not None:
        name = list((await service.facts.spec(row.id)).spec.tasks)[failure.task]
        details = [f"The first failure was {name}.{failure.index}: {failure.message or failure.reason}"]
    summary = f"{what} is {found}" if found == JobState.QUARANTINED else f"{what} has ended: {found}"
    summary += f". {message}" if message else "."
    return WhyView(
        job=row.id, task=task, index=index, state=found, summary=summary, details=details, placed=placed
    )


def _placed(elements: list[ElementView]) -> str | None:
    attempts = [attempt for element in elements[:1] for attempt in element.attempts]
    return attempts[-1].placed if attempts else None


jobs_router = Router(
    "/v1/jobs", route_handlers=[submit, list_jobs, show, show_spec, show_task, wait, cancel, retry, why]
)
