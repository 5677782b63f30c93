"""The same client for programs without asyncio: each method waits for its async twin.

The event loop runs in a thread of its own. Inside of a running event loop it is refused, since waiting would
stop that loop; but not in notebooks, whose cells run beside a loop that has nothing else to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Self, TypeVar

from towline.client.api import JobPage
from towline.client.cluster.remote import Remote
from towline.client.jobs import Job
from towline.client.local import connect
from towline.client.streams import LogChunk
from towline.model.job import JobSpec, Param
from towline.model.views import (
    ArtifactView,
    ElementView,
    EventView,
    JobView,
    NodeView,
    PlanView,
    PoolView,
    QueueView,
    RetryView,
    ServerView,
    TaskView,
    WhyView,
)

if TYPE_CHECKING:
    from towline.client.submission import Submission

T = TypeVar("T")

_LOOP_END_S = 5


class _Loop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="towline-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Where waiting is interrupted (Ctrl-C), the work is cancelled, and has ended when this raises."""
        # No concurrent future: an interrupt inside of its condition could leave that locked for ever.
        told: SimpleQueue[asyncio.Task[T]] = SimpleQueue()
        begun: list[asyncio.Task[T]] = []

        def begin() -> None:
            begun.append(self._loop.create_task(work))
            begun[0].add_done_callback(told.put)

        try:
            self._loop.call_soon_threadsafe(begin)
            done = told.get()
        except BaseException:
            self._loop.call_soon_threadsafe(lambda: begun[0].cancel() if begun else work.close())
            with contextlib.suppress(Empty):
                told.get(timeout=_LOOP_END_S)
            raise
        return done.result()

    def iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        try:
            while True:
                try:
                    yield self.run(_next(items))
                except StopAsyncIteration:
                    return
        finally:
            self.run(items.aclose())

    def close(self) -> None:
        """Nothing may run any more."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_LOOP_END_S)
        self._loop.close()


def _must_not_stop_a_loop() -> None:
    """Raises RuntimeError inside of a running event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    if "ipykernel" not in sys.modules:
        raise RuntimeError(
            "SyncClient would stop the event loop that runs here while it waits: use `await connect()` of "
            "towline.client, whose methods have the same names."
        )


async def _next(items: AsyncGenerator[T, None]) -> T:
    return await anext(items)


class SyncJob:
    """A job; see ``Job`` for what each method means and raises."""

    def __init__(self, loop: _Loop, job: Job) -> None:
        self._loop = loop
        self._job = job
        self.id = job.id
        self.name = job.name
        self.submitted = job.submitted

    def __repr__(self) -> str:
        return f"SyncJob({self.id!r}, name={self.name!r})"

    def view(self, elements: int = 0) -> JobView:
        return self._loop.run(self._job.view(elements))

    def document(self) -> dict[str, Any]:
        return self._loop.run(self._job.document())

    def set_priority(self, priority: int) -> JobView:
        return self._loop.run(self._job.set_priority(priority))

    def wait(self, timeout_s: float | None = None) -> JobView:
        return self._loop.run(self._job.wait(timeout_s))

    def task(
        self, task: str, *, cursor: str | None = None, limit: int | None = None, state: str | None = None
    ) -> TaskView:
        return self._loop.run(self._job.task(task, cursor=cursor, limit=limit, state=state))

    def elements(self, task: str, *, state: str | None = None) -> Iterator[ElementView]:
        return self._loop.iterate(self._job.elements(task, state=state))

    def cancel(self, task: str | None = None, index: int | None = None, *, kill: bool = False) -> JobView:
        return self._loop.run(self._job.cancel(task, index, kill=kill))

    def retry(
        self,
        named: Iterable[tuple[str, int | None]] = (),
        *,
        failed: bool = False,
        key: str | None = None,
    ) -> RetryView:
        return self._loop.run(self._job.retry(named, failed=failed, key=key))

    def why(self, task: str | None = None, index: int | None = None) -> WhyView:
        return self._loop.run(self._job.why(task, index))

    def events(self, cursor: str | None = None) -> Iterator[EventView]:
        for batch in self._loop.iterate(self._job.event_batches(cursor)):
            yield from batch

    def logs(
        self,
        task: str | None = None,
        index: int | None = None,
        *,
        attempt: int | None = None,
        tail: int | None = None,
        follow: bool = False,
        stream: str = "both",
        since: int | None = None,
    ) -> Iterator[LogChunk]:
        chunks = self._job.logs(
            task, index, attempt=attempt, tail=tail, follow=follow, stream=stream, since=since
        )
        return self._loop.iterate(chunks)

    def artifacts(
        self, task: str | None = None, index: int | None = None, *, attempt: int | None = None
    ) -> Iterator[ArtifactView]:
        return self._loop.iterate(self._job.artifacts(task, index, attempt=attempt))

    def artifact(
        self, path: str, task: str | None = None, index: int | None = None, *, attempt: int | None = None
    ) -> Iterator[bytes]:
        return self._loop.iterate(self._job.artifact(path, task, index, attempt=attempt))


class SyncClient:
    """A client of the server that is meant; see ``connect``, which takes the same ``home``.

    Use it in a ``with`` statement, or ``close`` it; see ``Client`` for what each method means and raises.
    """

    def __init__(self, home: str | Path | Remote | None = None) -> None:
        _must_not_stop_a_loop()
        self._loop = _Loop()
        try:
            self._client = self._loop.run(connect(home))
        except BaseException:
            self._loop.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._loop.run(self._client.close())
        self._loop.close()

    def server(self) -> ServerView:
        return self._loop.run(self._client.server())

    def submit(
        self,
        job: JobSpec | Mapping[str, Any] | str | Path | Submission,
        *,
        params: Mapping[str, Param] | None = None,
        key: str | None = None,
        base_dir: str | Path | None = None,
        pool: str | Sequence[str] | None = None,
    ) -> SyncJob:
        work = self._client.submit(job, params=params, key=key, base_dir=base_dir, pool=pool)
        return SyncJob(self._loop, self._loop.run(work))

    def job(self, job: str) -> SyncJob:
        return SyncJob(self._loop, self._loop.run(self._client.job(job)))

    def jobs(self, *, limit: int = 50, cursor: str | None = None, state: str | None = None) -> JobPage:
        return self._loop.run(self._client.jobs(limit=limit, cursor=cursor, state=state))

    def nodes(self, pool: str | None = None) -> list[NodeView]:
        return self._loop.run(self._client.nodes(pool))

    def queues(self, pool: str | None = None) -> list[QueueView]:
        return self._loop.run(self._client.queues(pool))

    def queue(self, name: str, pool: str | None = None) -> QueueView:
        return self._loop.run(self._client.queue(name, pool))

    def set_queue(
        self, name: str, *, only: str | None = None, pool: str | None = None, **fields: object
    ) -> QueueView:
        return self._loop.run(self._client.set_queue(name, only=only, pool=pool, **fields))

    def delete_queue(self, name: str, pool: str | None = None) -> None:
        self._loop.run(self._client.delete_queue(name, pool))

    def pools(self) -> list[PoolView]:
        return self._loop.run(self._client.pools())

    def plan(
        self,
        job: JobSpec | Mapping[str, Any] | str | Path | Submission,
        *,
        params: Mapping[str, Param] | None = None,
        base_dir: str | Path | None = None,
        pool: str | Sequence[str] | None = None,
    ) -> PlanView:
        return self._loop.run(self._client.plan(job, params=params, base_dir=base_dir, pool=pool))
