"""Following a running job: its events in batches, and its view now and then.

An array of ten thousand elements makes some twenty thousand events; the job's view, whose cost does
not grow with them, gives the counts. So events are only looked at for what is running and what failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, NamedTuple

from towline.client.jobs import Job, ended
from towline.model.pulls import PULLING, PullingView
from towline.model.states import ElementState
from towline.model.views import EventView, JobView, TaskView

VIEW_EVERY_S = 0.25
_VIEW_SHARE = 20
PULLS_EVERY_S = 1.0
"""How often the view is fetched for its pulls alone."""


class Step(NamedTuple):
    """What is new: events, and the job's view where it was asked for (always in the last step)."""

    events: list[EventView]
    view: JobView | None


class Element(NamedTuple):
    """One element of a job: its task's name and its number in the array."""

    task: str
    number: int


class Running(NamedTuple):
    """An element that is placed: ``since`` is this process's monotonic clock, in seconds."""

    number: int
    since: float


class Failure(NamedTuple):
    """An attempt that did not succeed; ``again``: its element is queued once more, ``message``: why, in
    a sentence, where it was said."""

    element: Element
    number: int
    reason: str | None
    exit_code: int | None
    again: bool
    message: str | None = None


async def follow(
    job: Job, *, tick_s: float | None = None, cursor: str | None = None
) -> AsyncGenerator[Step, None]:
    """Yield what is new (after ``cursor``) until the job has ended, and at least every ``tick_s``.

    The view is fetched at most every VIEW_EVERY_S, and once more at the end; less often where it is
    large, so that fetching it takes a small part of the time.
    """
    pending: list[EventView] = []
    wake = asyncio.Event()

    async def read() -> None:
        async with aclosing(job.event_batches(cursor)) as batches:
            async for batch in batches:
                pending.extend(batch)
                wake.set()

    preparing: set[tuple[str, int]] = set()
    reader = asyncio.create_task(read())
    reader.add_done_callback(lambda _: wake.set())
    view_at = time.monotonic()
    every_s = VIEW_EVERY_S
    stale = False
    try:
        while True:
            next_view_s = every_s if stale else max(every_s, PULLS_EVERY_S) if preparing else None
            left_s = None if next_view_s is None else view_at + next_view_s - time.monotonic()
            await _wait(wake, _earliest(tick_s, left_s))
            wake.clear()
            over = reader.done()
            if over:
                reader.result()
            events = pending[:]
            pending.clear()
            _note_preparing(preparing, events)
            # How far pulls are makes no events.
            pulling = bool(preparing) and time.monotonic() - view_at >= PULLS_EVERY_S
            stale = stale or bool(events) or pulling
            view = None
            if over or (stale and time.monotonic() - view_at >= every_s):
                asked_at = time.monotonic()
                view = await job.view()
                view_at, stale = time.monotonic(), False
                every_s = max(VIEW_EVERY_S, _VIEW_SHARE * (view_at - asked_at))
            yield Step(events, view)
            if over and view is not None and ended(view):
                return
    finally:
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader


def _note_preparing(preparing: set[tuple[str, int]], events: list[EventView]) -> None:
    """The elements whose node gets their image or inputs."""
    for event in events:
        if event.kind == "attempt.preparing":
            preparing.add((str(event.data["task"]), int(str(event.data["index"]))))
        elif event.kind in ("attempt.running", "attempt.finished", "attempt.lost"):
            preparing.discard((str(event.data["task"]), int(str(event.data["index"]))))


def _earliest(*waits_s: float | None) -> float | None:
    given = [max(0.0, wait_s) for wait_s in waits_s if wait_s is not None]
    return min(given) if given else None


async def _wait(wake: asyncio.Event, timeout_s: float | None) -> None:
    if wake.is_set():
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await wake.wait()


class Progress:
    """What a display shows of a job: its latest view, the elements that run, and what failed.

    ``started``, ``ended`` (task and state) and ``failures`` are what the latest ``apply`` has brought;
    ``news`` is all of that in the order in which it happened, behind the images that began to be pulled.
    """

    def __init__(self, view: JobView) -> None:
        self.view = view
        self.sizes = {task.name: task.size for task in view.tasks}
        self.running: dict[Element, Running] = {}
        self.started: list[str] = []
        self.ended: list[tuple[str, str]] = []
        self.failures: list[Failure] = []
        self.news: list[str | tuple[str, str] | Failure | PullingView] = []
        self._seen: set[str] = set()
        self._pulls: set[tuple[str, str]] = set()

    @property
    def tasks(self) -> list[TaskView]:
        return self.view.tasks

    def apply(self, step: Step) -> None:
        self.started, self.ended, self.failures, self.news = [], [], [], []
        if step.view is not None:
            self.view = step.view
            for pull in step.view.pulls:
                if (pull.node, pull.image) not in self._pulls and pull.step == PULLING:
                    self._pulls.add((pull.node, pull.image))
                    self.news.append(pull)
        for event in step.events:
            data: dict[str, Any] = event.data
            match event.kind:
                case "elements.assigned":
                    self._assigned(data)
                case "attempt.running":
                    key = Element(data["task"], data["index"])
                    self.running[key] = Running(data["number"], time.monotonic())
                case "attempt.finished" | "attempt.lost":
                    self._finished(data)
                case "task.ended":
                    self.ended.append((data["task"], data["state"]))
                    self.news.append(self.ended[-1])
                case _:
                    pass

    def _assigned(self, data: dict[str, Any]) -> None:
        task, now = data["task"], time.monotonic()
        if task not in self._seen:
            self._seen.add(task)
            self.started.append(task)
            self.news.append(task)
        for index, number in data["elements"]:
            self.running[Element(task, index)] = Running(number, now)

    def _finished(self, data: dict[str, Any]) -> None:
        element = Element(data["task"], data["index"])
        self.running.pop(element, None)
        state = data.get("element_state")
        if state in (ElementState.SUCCEEDED, ElementState.CANCELLED):
            return
        again = state in (ElementState.QUEUED, ElementState.ACTIVE)
        self.failures.append(
            Failure(
                element, data["number"], data.get("reason"), data.get("exit_code"), again, data.get("message")
            )
        )
        self.news.append(self.failures[-1])
