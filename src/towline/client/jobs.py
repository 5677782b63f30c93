"""A submitted job: what can be asked of it, waited for and done to it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from towline.client.streams import LogChunk, Resumed, lines, messages
from towline.errors import NotFound, Unavailable
from towline.model.states import JobState
from towline.model.views import ArtifactView, ElementView, EventView, JobView, RetryView, TaskView, WhyView

if TYPE_CHECKING:
    from towline.client.api import Client
    from towline.client.artifacts import Artifacts
    from towline.client.exec import Exec

_POLL_S = 30
_BETWEEN_STREAMS_S = 0.05

_SILENCE_S = 45.0
"""A server says every 15 s that it is still there."""
_LAST_EVENTS = ("job.ended", "job.quarantined")
_RETRIED = "job.retried"

_events = msgspec.json.Decoder(list[EventView])
_log_line = msgspec.json.Decoder(LogChunk)


def ended(view: JobView) -> bool:
    """Whether nothing will happen to the job any more. A quarantined job waits for an operator: it has ended
    for whoever waits."""
    return view.state != JobState.RUNNING


class Job:
    """Made by ``Client.submit`` and ``Client.job``. ``submitted`` is its view at that moment."""

    def __init__(self, client: Client, view: JobView) -> None:
        self._client = client
        self._path = f"/v1/jobs/{quote(view.id, safe='')}"
        self.submitted = view
        self.id = view.id
        self.name = view.name

    def __repr__(self) -> str:
        return f"Job({self.id!r}, name={self.name!r})"

    async def view(self, elements: int = 0) -> JobView:
        """The job as it stands; ``elements`` says how many elements at most are shown, over all tasks."""
        return await self._client.get(JobView, self._path, elements=elements)

    async def document(self) -> dict[str, Any]:
        """The job file that was submitted, with its parameters filled in, as a JSON tree."""
        return await self._client.get(dict[str, Any], f"{self._path}/spec")

    async def set_priority(self, priority: int) -> JobView:
        """Another priority, 0 to 100, for what of it is still queued. Raises RequestError."""
        return await self._client.post(JobView, f"{self._path}/priority", {"priority": priority})

    async def wait(self, timeout_s: float | None = None) -> JobView:
        """Wait for its end; after ``timeout_s`` returns the view of a job that still runs."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = _POLL_S if deadline is None else max(0.0, deadline - time.monotonic())
            view = await self._client.get(JobView, f"{self._path}/wait", timeout_s=min(left_s, _POLL_S))
            if ended(view) or (deadline is not None and time.monotonic() >= deadline):
                return view

    async def task(
        self,
        task: str,
        *,
        cursor: str | None = None,
        limit: int | None = None,
        state: str | None = None,
    ) -> TaskView:
        """One page of a task's elements; ``next_cursor`` of the answer is where the next one begins."""
        path = f"{self._path}/tasks/{quote(task, safe='')}"
        return await self._client.get(TaskView, path, cursor=cursor, limit=limit, state=state)

    async def elements(self, task: str, *, state: str | None = None) -> AsyncGenerator[ElementView, None]:
        """All elements of a task, page by page."""
        cursor: str | None = None
        while True:
            page = await self.task(task, cursor=cursor, limit=1000, state=state)
            for element in page.elements:
                yield element
            cursor = page.next_cursor
            if cursor is None:
                return

    async def cancel(
        self, task: str | None = None, index: int | None = None, *, kill: bool = False
    ) -> JobView:
        """Wish that the job, one task of it or one element ends: SIGTERM, after the task's grace
        SIGKILL; ``kill``: SIGKILL at once. Returns at once; ``wait`` for the end."""
        body = {"task": task, "index": index, "kill": kill}
        return await self._client.post(JobView, f"{self._path}/cancel", body)

    async def retry(
        self,
        named: Iterable[tuple[str, int | None]] = (),
        *,
        failed: bool = False,
        key: str | None = None,
    ) -> RetryView:
        """Run again what did not succeed: all of it, or what is ``named`` as (task, index; None: all of the
        task). ``failed``: what was cancelled stays so. Repeated with the same ``key``, nothing changes.

        Raises Conflict where there is nothing to run again."""
        elements = [{"task": task, "index": index} for task, index in named]
        body = {"elements": elements, "failed": failed}
        answer = await self._client.request(
            "POST", f"{self._path}/retry", body=body, key=key or uuid.uuid4().hex
        )
        return msgspec.json.decode(answer, type=RetryView)

    async def why(self, task: str | None = None, index: int | None = None) -> WhyView:
        """Why the job, the task or the element is in the state that it is in."""
        return await self._client.get(WhyView, f"{self._path}/why", task=task, index=index)

    def exec(
        self,
        task: str,
        index: int,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        workdir: str | None = None,
        terminal: tuple[int, int] | None = None,
    ) -> AbstractAsyncContextManager[Exec]:
        """Run a command inside the running attempt of an element, and leave it at the end of ``async with``:
        what still runs of it is killed then. ``terminal``: (rows, columns) of one for it. Raises RequestError
        where the element does not run, CannotStart, Unavailable."""
        from towline.client.exec import opened  # its library is loaded by who needs it
        from towline.wire.exec import Open

        wanted = Open(argv=tuple(command), env=dict(env or {}), user=user, workdir=workdir, terminal=terminal)
        path = f"{self._path}/tasks/{quote(task, safe='')}/elements/{index}/exec"
        return opened(self._client.at, path, wanted)

    async def events(self, cursor: str | None = None) -> AsyncGenerator[EventView, None]:
        """What happened to it and happens, after ``cursor``, until it has ended."""
        async with aclosing(self.event_batches(cursor)) as batches:
            async for batch in batches:
                for event in batch:
                    yield event

    async def event_batches(self, cursor: str | None = None) -> AsyncGenerator[list[EventView], None]:
        """The same in the batches in which they came. Goes on where a connection or a server ended."""
        over = False
        while not over:
            opened = quiet = False
            try:
                stream = self._client.stream(f"{self._path}/events", silence_s=_SILENCE_S, cursor=cursor)
                async with stream as chunks:
                    opened = quiet = True
                    async with aclosing(messages(chunks)) as found:
                        async for message in found:
                            quiet = False
                            cursor = message.id or cursor
                            batch = _events.decode(message.data)
                            # An end may be one that a retry has undone: then the stream goes on.
                            over = _ended_after(batch, over)
                            yield batch
            except Unavailable:
                if not opened:
                    raise
                quiet = False
            if quiet:  # nothing has happened after ``cursor``: it may have ended before
                over = ended(await self.view())
            if not over:
                await asyncio.sleep(_BETWEEN_STREAMS_S)

    async def logs(
        self,
        task: str | None = None,
        index: int | None = None,
        *,
        attempt: int | None = None,
        tail: int | None = None,
        follow: bool = False,
        stream: str = "both",
        since: int | None = None,
    ) -> AsyncGenerator[LogChunk, None]:
        """The output of one element, of its latest attempt where none is named.

        ``task`` and ``index`` may be left out where there is only one. ``tail``: the last lines only.
        ``follow``: waits for its start if need be, and ends when the attempt's output is complete.
        ``since``: what was written at that time, in unix ms, or later.
        """
        path = await self._log_path(task, index)
        query: dict[str, Any] = {"attempt": attempt, "follow": follow, "stream": stream, "since": since}
        resumed = Resumed()
        while True:
            # Read again after a break: from the start, since offsets say what was seen, and not the tail.
            asked = query if resumed.started else {**query, "tail": tail}
            opened = False
            try:
                async with self._client.stream(path, **asked) as chunks:
                    opened = True
                    async with aclosing(lines(chunks)) as found:
                        async for line in found:
                            chunk = resumed.fresh(_log_line.decode(line)) if line else None
                            if chunk is not None:
                                yield chunk
                return
            except Unavailable:
                if not opened:
                    raise
                await asyncio.sleep(_BETWEEN_STREAMS_S)

    async def artifacts(
        self, task: str | None = None, index: int | None = None, *, attempt: int | None = None
    ) -> AsyncGenerator[ArtifactView, None]:
        """What one element has kept under TOW_OUT, in order of the paths; of an attempt that did not succeed
        where ``attempt`` is given. ``task`` and ``index`` as in ``logs``. Raises NotFound, Conflict where the
        element has not ended or did not succeed."""
        async with aclosing((await self._artifacts(task, index, attempt)).list()) as found:
            async for artifact in found:
                yield artifact

    async def artifact(
        self, path: str, task: str | None = None, index: int | None = None, *, attempt: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The content of one of these files, in pieces that are checked by their digests. Raises NotFound,
        Unavailable where it breaks off: its node has to be connected."""
        async with aclosing((await self._artifacts(task, index, attempt)).read(path)) as pieces:
            async for piece in pieces:
                yield piece

    async def _artifacts(self, task: str | None, index: int | None, attempt: int | None) -> Artifacts:
        from towline.client.artifacts import Artifacts

        if task is None or index is None:
            task, index = await self.only_element(task)
        return Artifacts(self._client, self.id, task, index, attempt)

    async def _log_path(self, task: str | None, index: int | None) -> str:
        if task is None or index is None:
            task, index = await self.only_element(task)
        return f"{self._path}/tasks/{quote(task, safe='')}/elements/{index}/logs"

    async def only_element(self, task: str | None = None) -> tuple[str, int]:
        """(task, index) of the only element of the job or task. Raises NotFound where there are several."""
        view = await self.view()
        found = [t for t in view.tasks if task is None or t.name == task]
        if not found:
            raise NotFound(f"Job {self.name} has no task {task!r}; its tasks: {_some(view.tasks)}.")
        if len(found) > 1:
            raise NotFound(f"Job {self.name} has {len(found)} tasks; say which: {_some(found)}.")
        if found[0].size > 1:
            raise NotFound(
                f"Task {found[0].name} has {found[0].size} elements; say which, such as {found[0].name}.0"
            )
        page = await self.task(found[0].name, limit=1)
        return found[0].name, page.elements[0].index


def _ended_after(batch: list[EventView], before: bool) -> bool:
    """Whether the job has ended after these events; ``before``: whether it had before them."""
    kinds = [event.kind for event in batch if event.kind in _LAST_EVENTS or event.kind == _RETRIED]
    return kinds[-1] in _LAST_EVENTS if kinds else before


def _some(tasks: list[TaskView], limit: int = 10) -> str:
    names = [task.name for task in tasks[:limit]]
    return ", ".join(names) + (", …" if len(tasks) > limit else "")
