"""What a command's user is told while its image is pulled."""

from __future__ import annotations

from typing import Any, cast

import pytest

from towline.cli.screen import pulling
from towline.client import Job
from towline.errors import Unavailable
from towline.model.pulls import PullingView
from towline.model.views import AttemptView, ElementView, JobView, TaskView


def attempt(started_at: str | None) -> AttemptView:
    return AttemptView(
        id="j-0-0-1", number=1, node="n", state="preparing", reason=None, message=None, exit_code=None,
        signal=None, assigned_at=None, started_at=started_at, finished_at=None, peak_memory_bytes=None,
        cpu_seconds=None, image_digest=None,
    )  # fmt: skip


def view(arrived: int | None, started_at: str | None = None) -> JobView:
    element = ElementView(
        index=0, state="active", reason=None, message=None, exit_code=None, attempts=[attempt(started_at)]
    )
    task = TaskView(
        name="main", state="active", reason=None, message=None, size=1, needs=[], counts={},
        elements=[element], next_cursor=None,
    )  # fmt: skip
    pulls = [] if arrived is None else [
        PullingView(
            image="x:1", node="n", tasks=["main"], step="pulling", arrived_bytes=arrived,
            total_bytes=30_000_000, seconds=1,
        )
    ]  # fmt: skip
    return JobView(
        id="j", name="x", namespace="default", state="running", reason=None, message=None, priority=50,
        labels={}, submitted_at="", ended_at=None, cancel_requested=False, counts={}, tasks=[task],
        pulls=pulls,
    )  # fmt: skip


class FakeJob:
    def __init__(self, *views: JobView | Exception) -> None:
        self.left = list(views)

    async def view(self, elements: int) -> JobView:
        assert elements == 1
        found = self.left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


async def told(monkeypatch: pytest.MonkeyPatch, *views: JobView | Exception) -> FakeJob:
    monkeypatch.setattr(pulling, "FIRST_S", 0.0)
    monkeypatch.setattr(pulling, "LONGEST_S", 0.0)
    job = FakeJob(*views)
    await pulling.tell_pulls(cast("Job", job))
    return job


async def test_in_a_pipe_it_is_one_line_and_ends_with_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = view(None, "2026-01-01T00:00:00.000Z")
    job = await told(monkeypatch, view(None), view(10_000_000), view(20_000_000), started, view(None))
    assert len(job.left) == 1
    assert capsys.readouterr().err == "pulling x:1: 10 of 30 MB, 1 s\n"


async def test_on_a_terminal_it_is_drawn_anew_and_taken_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    lost: Any = Unavailable("gone")
    await told(monkeypatch, view(10_000_000), view(20_000_000), lost)
    clear = "\r\x1b[K"
    assert capsys.readouterr().err == (
        f"{clear}pulling x:1: 10 of 30 MB, 1 s{clear}pulling x:1: 20 of 30 MB, 1 s{clear}"
    )
