"""The async client: one HTTP connection pool to a server, and a method for each thing it can be asked.

Every request is repeated, with the same idempotency key, for as long as ``patience_s`` allows while
no server answers: a local one is started by the ``start`` that the client was given.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import httpx2
import msgspec
from msgspec import Struct

from towline.client.cluster.patience import Patience, Tell
from towline.client.cluster.remote import Remote, Servers
from towline.client.jobs import Job
from towline.client.streams import lines
from towline.errors import (
    Conflict,
    Damaged,
    Forbidden,
    InvalidDocument,
    NotFound,
    OperatorError,
    Problem,
    RequestError,
    Unauthenticated,
    Unavailable,
)
from towline.model.job import JobSpec, Param
from towline.model.views import JobView, NodeView, PlanView, PoolView, QueueView, ServerView

if TYPE_CHECKING:
    from towline.client.submission import Submission

PATIENCE_S = 30.0
NAMESPACE_VARIABLE = "TOWLINE_NAMESPACE"
"""For those who may work in all namespaces: the one that is meant."""
_READ_WAIT_S = 75.0
_CONNECT_S = 10.0
_NEXT_S = 3.0
"""Where several servers are known, one that takes no connection for so long is not waited for."""

T = TypeVar("T")

_KINDS = {401: Unauthenticated, 403: Forbidden, 404: NotFound, 409: Conflict}


class JobPage(Struct, kw_only=True):
    """Jobs, newest first, without their tasks. ``next_cursor`` is null on the last page."""

    jobs: list[JobView]
    next_cursor: str | None = None


class NodeList(Struct, kw_only=True):
    nodes: list[NodeView]


class QueueList(Struct, kw_only=True):
    queues: list[QueueView]


class PoolList(Struct, kw_only=True):
    pools: list[PoolView]


class _ProblemDocument(Struct, kw_only=True):
    """RFC 9457, with Towline's list of everything that is wrong."""

    type: str = ""
    title: str = ""
    status: int = 0
    detail: str | None = None
    problems: list[dict[str, Any]] = []


class Client:
    """Talks to the server on a Unix socket, or to one over the network. Use it as an async context
    manager, or ``close`` it.

    ``start`` is awaited when nobody answers on the socket, before the request is repeated. ``waiting`` is
    called with the seconds that are left where a request has to wait for a server.
    Methods raise RequestError where the request is wrong, Unavailable where no server has answered
    for ``patience_s``, OperatorError where the server failed.
    """

    def __init__(
        self,
        at: str | Path | Remote,
        *,
        start: Callable[[], Awaitable[None]] | None = None,
        patience_s: float = PATIENCE_S,
        waiting: Tell | None = None,
    ) -> None:
        self._at = at if isinstance(at, Remote) else os.fspath(at)
        self._start = start
        self._patience_s = patience_s
        self._waiting = waiting
        self._told = False
        self._servers = Servers(at if isinstance(at, Remote) else None)
        self._seen: set[str] = set()
        """Ids of jobs that a server has shown: one that does not know them has another store."""
        self._http = self._open()

    def _open(self) -> httpx2.AsyncClient:
        opened = self._opened_pool()
        if namespace := os.environ.get(NAMESPACE_VARIABLE):
            opened.headers["towline-namespace"] = namespace
        return opened

    def _opened_pool(self) -> httpx2.AsyncClient:
        if isinstance(self._at, Remote):
            return self._at.open(httpx2.Timeout(_READ_WAIT_S, connect=self._connect_s), self._servers.url)
        return httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(
                uds=self._at,
                verify=False,  # no TLS on a Unix socket: leaves out loading the certificates
                limits=httpx2.Limits(max_connections=100, max_keepalive_connections=20),
            ),
            base_url=self._servers.url,
            timeout=httpx2.Timeout(_READ_WAIT_S, connect=self._connect_s),
            trust_env=False,
        )

    @property
    def _connect_s(self) -> float:
        return _NEXT_S if isinstance(self._at, Remote) and len(self._at.urls) > 1 else _CONNECT_S

    @property
    def at(self) -> str | Remote:
        """Where the server is: the path of its socket, or over the network."""
        return self._at

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def reconnect(self) -> None:
        """Leave all open connections, which lead to a server that has ended."""
        await self._http.aclose()
        self._http = self._open()

    # --- what can be asked ---------------------------------------------------------------------
    async def server(self) -> ServerView:
        return await self.get(ServerView, "/v1/server")

    async def api(self) -> dict[str, Any]:
        """The server's HTTP API as an OpenAPI document."""
        return await self.get(dict[str, Any], "/v1/openapi.json")

    async def stop_server(self) -> None:
        """Ask the local server to end; containers go on. Not repeated: raises Unavailable if it is gone."""
        try:
            response = await self._http.post("/v1/server/stop")
        except httpx2.TransportError as error:
            raise Unavailable(f"No server answers on {self._at}.") from error
        _checked(response)

    async def submit(
        self,
        job: JobSpec | Mapping[str, Any] | str | Path | Submission,
        *,
        params: Mapping[str, Param] | None = None,
        key: str | None = None,
        base_dir: str | Path | None = None,
        pool: str | Sequence[str] | None = None,
    ) -> Job:
        """Submit a job: a job file's path, its content as a dict, or a JobSpec.

        Relative mounts and images are below ``base_dir`` (default: the file's folder, else the
        current one). The same ``key`` with the same job gives the same job again; Conflict is
        raised where it was used for another one. ``pool``: a pool's name, ``any``, or several of
        which one gets it, in place of what the job says.
        """
        sent = _as_submission(job, params, base_dir, pool)
        body = {"document": sent.document, "params": sent.params, "base_dir": sent.base_dir}
        try:
            answer = await self.request("POST", "/v1/jobs", body=body, key=key or uuid.uuid4().hex)
        except InvalidDocument as error:
            raise sent.located(error) from None
        view = msgspec.json.decode(answer, type=JobView)
        self._seen.add(view.id)
        return Job(self, view)

    async def job(self, job: str) -> Job:
        """The job that JOB (an id, a unique prefix of one, or a name) means. Raises NotFound."""
        view = await self.job_view(job)
        self._seen.add(view.id)
        return Job(self, view)

    async def job_view(self, job: str, elements: int = 0) -> JobView:
        """``elements``: how many elements at most are shown, over all tasks."""
        return await self.get(JobView, f"/v1/jobs/{_quoted(job)}", elements=elements)

    async def jobs(self, *, limit: int = 50, cursor: str | None = None, state: str | None = None) -> JobPage:
        return await self.get(JobPage, "/v1/jobs", limit=limit, cursor=cursor, state=state)

    async def nodes(self, pool: str | None = None) -> list[NodeView]:
        """Of all pools, or of one."""
        return (await self.get(NodeList, "/v1/nodes", pool=pool)).nodes

    async def pools(self) -> list[PoolView]:
        """All pools, in order of their names."""
        return (await self.get(PoolList, "/v1/pools")).pools

    # ``pool`` None: the one that is there from the start.
    async def queues(self, pool: str | None = None) -> list[QueueView]:
        """All queues of a pool, in order of their names."""
        return (await self.get(QueueList, "/v1/queues", pool=pool)).queues

    async def queue(self, name: str, pool: str | None = None) -> QueueView:
        """Raises NotFound."""
        return await self.get(QueueView, _queue_path(name), pool=pool)

    async def set_queue(
        self, name: str, *, only: str | None = None, pool: str | None = None, **fields: object
    ) -> QueueView:
        """Make a queue, or change ``fields`` of one: parent, weight, guaranteed, maximum (amounts as in
        a job file: ``{"cpu": 4, "memory": "8Gi"}``, None takes one away), max_priority, max_active.

        ``only``: ``new`` or ``existing``, where it must not, or must, be there before.
        """
        path = _queue_path(name)
        answer = await self.request("PUT", path, query={"only": only, "pool": pool}, body=fields)
        return msgspec.json.decode(answer, type=QueueView)

    async def delete_queue(self, name: str, pool: str | None = None) -> None:
        """Raises NotFound, and RequestError for one with jobs or queues below it."""
        await self.request("DELETE", _queue_path(name), query={"pool": pool})

    async def plan(
        self,
        job: JobSpec | Mapping[str, Any] | str | Path | Submission,
        *,
        params: Mapping[str, Param] | None = None,
        base_dir: str | Path | None = None,
        pool: str | Sequence[str] | None = None,
    ) -> PlanView:
        """Where everything of a job would go now; it is not submitted. ``pool`` as for ``submit``."""
        sent = _as_submission(job, params, base_dir, pool)
        body = {"document": sent.document, "params": sent.params, "base_dir": sent.base_dir}
        try:
            return await self.post(PlanView, "/v1/plan", body)
        except InvalidDocument as error:
            raise sent.located(error) from None

    # --- requests ------------------------------------------------------------------------------
    async def export_events(self, since_ms: int = 0, pool: str | None = None) -> AsyncGenerator[bytes, None]:
        """A pool's events from a time on (unix milliseconds), as lines of JSON; see docs/guides/simulate.md.
        Raises Unavailable where it breaks off."""
        stream = self.stream("/v1/events/export", since_ms=since_ms, pool=pool)
        async with stream as chunks, aclosing(lines(chunks)) as found:
            async for line in found:
                yield line

    async def get(self, kind: type[T], path: str, **query: object) -> T:
        return msgspec.json.decode(await self.request("GET", path, query=query), type=kind)

    async def post(self, kind: type[T], path: str, body: object, **query: object) -> T:
        return msgspec.json.decode(await self.request("POST", path, query=query, body=body), type=kind)

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        key: str | None = None,
    ) -> bytes:
        """Send a request until it is answered; see the class for what is raised."""
        content = None if body is None else msgspec.json.encode(body)
        headers = {"content-type": "application/json"} if content is not None else {}
        if key is not None:
            headers["idempotency-key"] = key
        with self._patience() as patience:
            while True:
                asked = self._servers.asked
                try:
                    response = await self._http.request(
                        method,
                        path,
                        params=_query(query),
                        content=content,
                        headers=headers,
                        extensions={"trace": patience.trace},
                    )
                    return self._answered(response)
                except NotFound as error:
                    raise await self._why_not_found(path, error) from None
                except (httpx2.TransportError, Unavailable) as error:
                    await self._recover(error, patience, asked)

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        *,
        method: str = "GET",
        body: object = None,
        silence_s: float | None = None,
        **query: object,
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """The body of an answer, chunk by chunk. Raises Unavailable where it breaks off, or nothing comes for
        ``silence_s``."""
        response = await self._opened(method, path, query, body, silence_s)
        # Closed from the inside out, now and not when the garbage collector comes by.
        async with aclosing(response), aclosing(_unbroken(response)) as chunks:
            yield chunks

    async def _opened(
        self, method: str, path: str, query: Mapping[str, object], body: object, silence_s: float | None
    ) -> httpx2.Response:
        endless = httpx2.Timeout(_READ_WAIT_S, connect=self._connect_s, read=silence_s)
        with self._patience() as patience:
            while True:
                asked = self._servers.asked
                request = self._http.build_request(
                    method,
                    path,
                    params=_query(query),
                    content=None if body is None else msgspec.json.encode(body),
                    timeout=endless,
                    extensions={"trace": patience.trace},
                )
                try:
                    response = await self._http.send(request, stream=True)
                    if response.status_code < 400:
                        self._told = False
                        return response
                    await response.aread()
                    self._answered(response)
                except NotFound as error:
                    raise await self._why_not_found(path, error) from None
                except (httpx2.TransportError, Unavailable) as error:
                    await self._recover(error, patience, asked)

    def _patience(self) -> Patience:
        return Patience(self._patience_s, None if self._waiting is None else self._tell)

    def _tell(self, left_s: float) -> None:
        """Once, until a server has answered, however many requests wait."""
        if not self._told and self._waiting is not None:
            self._told = True
            self._waiting(left_s)

    def _answered(self, response: httpx2.Response) -> bytes:
        """As ``_checked``; a server that is not ready has not answered."""
        if response.status_code != 503:
            self._told = False
        return _checked(response)

    async def _why_not_found(self, path: str, error: NotFound) -> Exception:
        """The error itself, unless it is about a job that was there before: then the store is another one."""
        job = path.removeprefix("/v1/jobs/").partition("/")[0]
        if job not in self._seen:
            return error
        with contextlib.suppress(httpx2.TransportError):
            found = await self._http.get(f"/v1/jobs/{job}", params={"elements": "0"})
            if found.status_code == 404:
                return Unavailable(
                    f"Job {job} is not known any more to the server on {self._at}: it has another store "
                    "than when the job was submitted. Was TOWLINE_HOME removed?"
                )
        return error

    async def _recover(self, error: Exception, patience: Patience, asked: int) -> None:
        """Start a server if nobody answers, or wait; raises Unavailable when patience ends. ``asked`` is
        which of several servers the request went to."""
        self._servers.failed(asked, error)
        self._http.base_url = self._servers.url
        patience.failed()
        if patience.ended:
            answered = isinstance(error, Unavailable)
            what = "The server cannot do this now" if answered else f"No server answers on {self._at}"
            raise Unavailable(f"{what}: {_said(error)}{self._servers.distrust}") from None
        if isinstance(error, httpx2.TransportError) and self._start is not None:
            await self._start()
        await patience.wait(error.retry_after_s if isinstance(error, _Busy) else None)


class _Busy(Unavailable):
    """A server answered 503: ``retry_after_s`` is when it wants to be asked again, if it said so."""

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


async def _unbroken(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    try:
        async with aclosing(response.aiter_bytes()) as chunks:
            async for chunk in chunks:
                yield chunk
    except httpx2.TransportError as error:
        raise Unavailable(f"The server ended before its answer did: {_said(error)}") from None


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _quoted(part: str) -> str:
    """One part of a path. A lone ``.`` or ``..`` would be resolved away, whatever its quoting."""
    if not part:
        raise NotFound("JOB is empty: give a job's id, the beginning of one, or its name.")
    if part in (".", ".."):
        raise NotFound(f"There is no job {part!r}.")
    return quote(part, safe="")


def part_of(name: str, what: str) -> str:
    """``name`` as one part of a path. Raises NotFound for one that would lead elsewhere: ``.``, ``..``,
    nothing, or one with a slash."""
    if name in ("", ".", "..") or "/" in name:
        raise NotFound(f"There is no {what} {name!r}.")
    return quote(name, safe="")


def _as_submission(
    job: JobSpec | Mapping[str, Any] | str | Path | Submission,
    params: Mapping[str, Param] | None,
    base_dir: str | Path | None,
    pool: str | Sequence[str] | None,
) -> Submission:
    # What reads job files is loaded by those who have one: it takes as long as much of the rest.
    from towline.client.submission import Submission

    sent = job if isinstance(job, Submission) else Submission.of(job, params, base_dir)
    return sent if pool is None else sent.into(pool)


def _queue_path(name: str) -> str:
    if name in ("", ".", "..") or "/" in name:
        raise RequestError(f"{name!r} is no queue: a name is 1 to 63 letters, digits, '.', '_' and '-'.")
    return f"/v1/queues/{quote(name, safe='')}"


def _query(query: Mapping[str, object] | None) -> dict[str, str]:
    shown = {True: "true", False: "false"}
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return {n: shown[v] if isinstance(v, bool) else str(v) for n, v in given.items()}


def _checked(response: httpx2.Response) -> bytes:
    """The body of a good answer; else the error that its problem document stands for."""
    if response.status_code < 400:
        return response.content
    try:
        document = msgspec.json.decode(response.content, type=_ProblemDocument)
    except msgspec.DecodeError:
        document = _ProblemDocument(detail=response.text[:500])
    text = document.detail or document.title or f"The server answered with status {response.status_code}."
    if document.type.endswith(":damaged"):
        raise Damaged(text)
    raise _error(response, text, document.problems)


def _error(response: httpx2.Response, text: str, problems: list[dict[str, Any]]) -> Exception:
    status = response.status_code
    if problems:
        return InvalidDocument([_problem(p) for p in problems])
    if status == 503:
        return _Busy(text, _seconds(response.headers.get("retry-after")))
    if status >= 500:
        return OperatorError(f"The server failed: {text}")
    return _KINDS.get(status, RequestError)(text)


def _problem(given: dict[str, Any]) -> Problem:
    where, message, remedy = (str(given.get(name) or "") for name in ("where", "message", "remedy"))
    return Problem(where, message, remedy, given.get("line"))


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None
