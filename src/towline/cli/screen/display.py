"""How a running job is shown: live on a terminal, as plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from towline.cli.screen.ending import because
from towline.cli.screen.terminal import counted, length, safe, seconds_between
from towline.client.progress import Failure
from towline.model.pulls import PullingView, pull_text
from towline.model.states import ENDED

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.text import Text

    from towline.client.progress import Element, Progress
    from towline.model.views import TaskView

MIN_COLUMNS_OF_BARS = 64
MAX_RUNNING_SHOWN = 5
MAX_PULLS_SHOWN = 3
MAX_LINES_OF_FAILURES = 20
REDRAW_S = 0.25

_STYLES = {
    "waiting": "dim",
    "queued": "yellow",
    "active": "cyan",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "magenta",
    "skipped": "dim",
}
_RANKS = {"active": 0, "failed": 1, "queued": 2, "waiting": 3, "cancelled": 4, "skipped": 5}


class Display(Protocol):
    """``tick_s``: how often it wants to be updated though nothing is new (None: not at all)."""

    @property
    def tick_s(self) -> float | None: ...

    def update(self, progress: Progress) -> None: ...

    def close(self) -> None: ...


def display_on(stream: TextIO) -> Display:
    return LiveDisplay(stream) if stream.isatty() else PlainDisplay(stream)


def name_of(element: Element, sizes: dict[str, int]) -> str:
    """``count.3``; without the index where the task is no array."""
    return f"{element.task}.{element.number}" if sizes.get(element.task, 1) > 1 else element.task


def said(failure: Failure, name: str) -> str:
    """A failed attempt in one line."""
    how = because(failure.reason, failure.message, failure.exit_code)
    return f"{name} failed: {how}" + (f" (attempt {failure.number}, tried again)" if failure.again else "")


class NoDisplay:
    """Shows nothing."""

    tick_s = None

    def update(self, progress: Progress) -> None:
        pass

    def close(self) -> None:
        pass


class PlainDisplay:
    """One line for each start and end of a task, and for failed attempts (the first of them)."""

    tick_s = None

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._failures = 0

    def update(self, progress: Progress) -> None:
        sizes = progress.sizes
        for piece in progress.news:
            if isinstance(piece, str):
                size = sizes.get(piece, 1)
                self._line(f"{piece}: started" + (f", {size} elements" if size > 1 else ""))
            elif isinstance(piece, Failure):
                self._failure(piece, name_of(piece.element, sizes))
            elif isinstance(piece, PullingView):
                self._line(f"{', '.join(piece.tasks)}: {pull_text(piece)}")
            else:
                task, state = piece
                self._line(f"{task}: {state}")
        if progress.news:
            self._stream.flush()

    def _failure(self, failure: Failure, name: str) -> None:
        self._failures += 1
        if self._failures <= MAX_LINES_OF_FAILURES:
            self._line(said(failure, name))
        if self._failures == MAX_LINES_OF_FAILURES:
            self._line("more failures are not listed here: see tow tasks")

    def _line(self, text: str) -> None:
        self._stream.write(f"{time.strftime('%H:%M:%S')} {safe(text)}\n")

    def close(self) -> None:
        pass


class LiveDisplay:
    """A table of tasks with bars, the elements that run, and the time since the submission."""

    tick_s = REDRAW_S

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live: Live | None = None
        self._drawn_at = 0.0
        self._failures: list[str] = []

    def update(self, progress: Progress) -> None:
        sizes = progress.sizes
        self._failures += [said(failure, name_of(failure.element, sizes)) for failure in progress.failures]
        del self._failures[:-3]
        ended = progress.view.ended_at is not None
        if time.monotonic() - self._drawn_at < REDRAW_S and not ended:
            return
        self._drawn_at = time.monotonic()
        live = self._started()
        live.update(self._drawing(progress, sizes, live.console.size), refresh=True)

    def _started(self) -> Live:
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._stream, highlight=False)
            self._live = Live(console=console, auto_refresh=False, transient=False)
            self._live.start()
        return self._live

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _drawing(self, progress: Progress, sizes: dict[str, int], size: tuple[int, int]) -> RenderableType:
        """``size``: columns and rows of the terminal; a drawing that is higher could not be redrawn."""
        from rich.console import Group

        columns, rows = size
        view = progress.view
        head = _line(f"{view.name} {view.id}  {view.state}  ", "bold")
        head.append(length(seconds_between(view.submitted_at, view.ended_at)), style="default not bold")
        below = [_line(f"all elements: {counted(view.counts)}", "dim")]
        if view.ended_at is None:
            below += [_line(pull_text(pull), "dim") for pull in view.pulls[:MAX_PULLS_SHOWN]]
            below.append(_line(f"running: {_running(progress, sizes) or 'nothing'}", "dim"))
        # The head, one task, the line of the others and the cursor's own come before failures.
        failures = self._failures[-room:] if (room := rows - len(below) - 4) > 0 else []
        below += [_line(line, "red") for line in failures]
        room = max(1, rows - len(below) - 2)
        tasks = list(progress.tasks)
        shown = tasks if len(tasks) <= room else _foremost(tasks, max(1, room - 1))
        if hidden := len(tasks) - len(shown):
            below.insert(0, _line(f"… and {hidden} more tasks", "dim"))
        return Group(head, _tasks_table(shown, bars=columns >= MIN_COLUMNS_OF_BARS), *below)


def _line(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(safe(text), style=style, overflow="ellipsis", no_wrap=True)


def _tasks_table(tasks: list[TaskView], *, bars: bool) -> RenderableType:
    """A row for each task, which is cut off where the terminal is too narrow for it."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for _ in range(5 if bars else 4):
        table.add_column(no_wrap=True, overflow="ellipsis")
    for task in tasks:
        many = task.size > 1
        done = sum(task.counts.get(state, 0) for state in ENDED)
        failed = task.counts.get("failed", 0)
        cells: list[Any] = [_line(task.name, ""), _line(task.state, _STYLES.get(task.state, ""))]
        if bars:
            cells.append(ProgressBar(total=task.size, completed=done, width=24) if many else "")
        cells.append(f"{done}/{task.size}" if many else "")
        cells.append(_line(f"{failed} failed" if failed and many else "", "red"))
        table.add_row(*cells)
    return table


def _foremost(tasks: list[TaskView], count: int) -> list[TaskView]:
    """Those in which something happens, then those that went wrong, then those that wait."""
    return sorted(tasks, key=lambda task: _RANKS.get(task.state, len(_RANKS)))[:count]


def _running(progress: Progress, sizes: dict[str, int]) -> str:
    """The elements that have run longest. They are kept in the order of their starts."""
    now = time.monotonic()
    shown: list[str] = []
    for element, running in progress.running.items():
        if len(shown) == MAX_RUNNING_SHOWN:
            shown.append(f"and {len(progress.running) - MAX_RUNNING_SHOWN} more")
            break
        shown.append(f"{name_of(element, sizes)} {length(now - running.since)}")
    return ", ".join(shown)


def default_display(json: bool) -> Display:
    """Where progress goes: stdout, or stderr where stdout is for the JSON document."""
    if not json:
        return display_on(sys.stdout)
    return display_on(sys.stderr) if sys.stderr.isatty() else NoDisplay()
