"""What is said when a job has ended: which elements failed, why, the end of their logs, and a summary."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from towline.cli.screen.terminal import FAILED, OK, counted, length, safe, seconds_between, write
from towline.errors import TowlineError
from towline.model.states import SENTENCES, Reason

if TYPE_CHECKING:
    from towline.client import Job
    from towline.model.views import ElementView, JobView, TaskView

MAX_FAILURES = 3
LOG_LINES = 10
_MAX_FOLDERS_SEARCHED = 200


def status_of(view: JobView) -> int:
    return OK if view.state == "succeeded" else FAILED


def summary(view: JobView) -> str:
    """``flights (01J…) succeeded in 12.3 s: 14 succeeded``."""
    took = length(seconds_between(view.submitted_at, view.ended_at))
    if view.state == "running":
        return f"{view.name} ({view.id}) still runs, for {took}: {counted(view.counts)}"
    return f"{view.name} ({view.id}) {view.state} in {took}: {counted(view.counts)}"


def because(reason: str | None, message: str | None, exit_code: int | None) -> str:
    """Why something failed, in one line: the same while it runs and at the end."""
    meaning = SENTENCES.get(Reason(reason)) if reason in set(Reason) else reason
    if reason == Reason.EXITED and exit_code is not None and message in (None, meaning):
        return f"exited with code {exit_code}"
    said = " ".join((message or meaning or "nobody knows why").split())
    return said if exit_code is None or str(exit_code) in said else f"{said} (exit code {exit_code})"


async def tell_failures(job: Job, view: JobView, lines: int = LOG_LINES) -> None:
    """The first failed elements, each with its reason in a sentence and its last ``lines`` of output."""
    if view.state == "quarantined" and view.message:
        write(safe(view.message))
    left = MAX_FAILURES
    for task in view.tasks:
        failed = task.counts.get("failed", 0)
        if not failed:
            continue
        if left == 0:
            write("… more tasks failed: see tow tasks " + view.id)
            return
        page = await job.task(task.name, limit=left, state="failed")
        for element in page.elements:
            await _tell_failure(job, task, element, lines)
        left -= len(page.elements)
        if failed > len(page.elements):
            more = failed - len(page.elements)
            write(f"… {more} more of {task.name} failed: tow tasks {view.id}/{task.name} --state failed")


async def _tell_failure(job: Job, task: TaskView, element: ElementView, lines: int) -> None:
    name = f"{task.name}.{element.index}" if task.size > 1 else task.name
    write(safe(f"{name} failed: {because(element.reason, element.message, element.exit_code)}"))
    if lines == 0 or not element.attempts:
        return
    for line in await _last_lines(job, task.name, element.index, lines):
        write(f"  | {line}")


async def _last_lines(job: Job, task: str, index: int, lines: int) -> list[str]:
    try:
        data = b"".join([chunk.data async for chunk in job.logs(task, index, tail=lines)])
    except TowlineError as error:
        return [safe(f"(its log cannot be read: {error})")]
    return [safe(line) for line in data.decode(errors="replace").splitlines()[-lines:]]


def artifacts_of(view: JobView) -> Path | None:
    """The folder of what the job has kept under TOW_OUT, if there is anything in it."""
    from towline.client.local import home_directory

    folder = home_directory() / "node" / "artifacts" / view.id
    for _, _, files in islice(os.walk(folder), _MAX_FOLDERS_SEARCHED):
        if files:
            return folder
    return None
