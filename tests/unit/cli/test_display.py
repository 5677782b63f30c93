"""How progress is shown."""

from __future__ import annotations

import io
import re

import pytest
from tests.unit.client.canned import job_view, task_view
from tests.unit.client.test_jobs import event

from towline.cli.screen.display import LiveDisplay, PlainDisplay
from towline.cli.screen.ending import because, summary
from towline.client.progress import Progress, Step
from towline.model.states import SENTENCES, Reason
from towline.model.views import EventView


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def assigned(task: str, *indexes: int) -> EventView:
    return event("elements.assigned", task=task, node="n", elements=[[index, 1] for index in indexes])


def failed(task: str, index: int, *, again: bool = False) -> EventView:
    state = "queued" if again else "failed"
    return event(
        "attempt.finished",
        task=task,
        index=index,
        number=1,
        reason="exited",
        exit_code=3,
        element_state=state,
    )


def test_plain_lines_tell_starts_ends_and_failures_in_their_order() -> None:
    out = io.StringIO()
    display = PlainDisplay(out)
    progress = Progress(job_view(tasks=[task_view("split"), task_view("count", size=12)]))
    ended = event("task.ended", task="split", state="succeeded")
    for events in (
        [assigned("split", 0), assigned("count", 0, 1)],
        [ended, failed("count", 0, again=True), failed("count", 1)],
    ):
        progress.apply(Step(events, None))
        display.update(progress)
    assert [line[9:] for line in out.getvalue().splitlines()] == [
        "split: started",
        "count: started, 12 elements",
        "split: succeeded",
        "count.0 failed: exited with code 3 (attempt 1, tried again)",
        "count.1 failed: exited with code 3",
    ]


def test_failures_are_told_in_the_words_of_the_end() -> None:
    out = io.StringIO()
    display = PlainDisplay(out)
    progress = Progress(job_view(tasks=[task_view("a"), task_view("b")]))
    told = {"number": 1, "index": 0, "exit_code": None, "element_state": "failed"}
    events = [
        event("attempt.finished", task="a", reason="start_failed", message="There is no program x.", **told),
        event("attempt.finished", task="b", reason="oom_killed", message=None, **told),
    ]
    progress.apply(Step(events, None))
    display.update(progress)
    lines = [line[9:] for line in out.getvalue().splitlines()]
    assert lines[0] == f"a failed: {because('start_failed', 'There is no program x.', None)}"
    assert lines[0] == "a failed: There is no program x."
    assert lines[1].startswith("b failed: The kernel killed it")
    assert (
        because("exited", SENTENCES[Reason.EXITED], 3) == because("exited", None, 3) == "exited with code 3"
    )


def test_plain_lines_do_not_list_thousands_of_failures() -> None:
    out = io.StringIO()
    display = PlainDisplay(out)
    progress = Progress(job_view(tasks=[task_view("a", size=1000)]))
    progress.apply(Step([failed("a", index) for index in range(1000)], None))
    display.update(progress)
    assert len(out.getvalue().splitlines()) == 21


def test_live_display_shows_bars_running_elements_and_the_end() -> None:
    out = Terminal()
    display = LiveDisplay(out)
    tasks = [task_view("split", state="succeeded", succeeded=1), task_view("count", size=4, succeeded=1)]
    progress = Progress(job_view(tasks=tasks))
    progress.apply(Step([assigned("count", 1, 2)], None))
    display.update(progress)
    first = out.getvalue()
    assert "count.1" in first
    assert "1/4" in first
    assert "━" in first
    progress.apply(Step([failed("count", 1)], job_view("failed", tasks=tasks)))
    display.update(progress)
    display.close()
    last = out.getvalue()[len(first) :]
    assert "failed" in last
    assert "1.50 s" in last
    assert "count.1 failed: exited with code 3" in last


@pytest.mark.parametrize(("columns", "rows"), [(100, 30), (40, 10), (20, 6)])
def test_live_display_fits_its_terminal(columns: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(rows))
    monkeypatch.setenv("TERM", "xterm")
    tasks = [task_view(f"a-task-with-a-long-name-{at}", 9, state="waiting", waiting=9) for at in range(100)]
    tasks[90] = task_view("busy", 9, active=9)
    tasks[95] = task_view("bad", 9, state="failed", failed=9)
    view = job_view(tasks=tasks)
    view.counts = {"active": 9, "failed": 9}
    progress = Progress(view)
    progress.apply(Step([assigned("busy", 1), failed("bad", 1), failed("bad", 2), failed("bad", 3)], None))
    out = Terminal()
    display = LiveDisplay(out)
    display.update(progress)
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).replace("\r", "").splitlines()
    display.close()
    assert len(drawn) < rows
    assert all(len(line) <= columns for line in drawn)
    assert drawn[1].startswith("busy")
    assert rows == 6 or drawn[2].startswith("bad")
    places = [line.partition(":")[0] for line in drawn]
    shown = places.index("all elements") - 2
    assert drawn[shown + 1] == f"… and {100 - shown} more tasks"[:columns]
    assert "running" in places


def test_summary_is_one_line() -> None:
    view = job_view("succeeded")
    view.counts = {"succeeded": 14, "failed": 0}
    assert summary(view) == "flights (job1) succeeded in 1.50 s: 14 succeeded"
