"""The answer of a replay: a table for people, JSON for programs, and a plot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from towline.cli.screen import terminal
from towline.cli.simulate.options import refused

if TYPE_CHECKING:
    from towline.simulation.replay.record import Record
    from towline.simulation.replay.report import FairnessView, ReplayView

FORMATS = (".svg", ".png")
Cell = Callable[["ReplayView"], object]


def check_plot(path: Path | None) -> None:
    """Before anything is replayed: whether it can be drawn. Raises RequestError."""
    if path is None:
        return
    if path.suffix.lower() not in FORMATS:
        raise refused("--plot", f"is {str(path)!r}", "name a file that ends in .svg or .png")
    if not path.parent.is_dir():
        raise refused("--plot", f"there is no folder {str(path.parent)!r}", "make it first")
    try:
        import matplotlib  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise refused(
            "--plot", "needs matplotlib, which is not installed", "pip install 'towline[plot]'"
        ) from None


def show(records: dict[str, Record], json: bool, plot: Path | None) -> None:
    from towline.simulation.replay.report import report

    views = {name: report(record) for name, record in records.items()}
    if json:
        terminal.write_json({"policies": views})
    else:
        _show_table(views)
    if plot is not None:
        from towline.simulation.replay.plot import draw

        drawn(lambda: draw(records, plot), plot)


def drawn(draw: Callable[[], None], plot: Path) -> None:
    """Raises RequestError where the file cannot be written."""
    try:
        draw()
    except OSError as error:
        problem = f"{plot} cannot be written: {error.strerror or error}"
        raise refused("--plot", problem, "name another file") from None


def _show_table(views: dict[str, ReplayView]) -> None:
    rows = [(title, [cell(view) for view in views.values()]) for title, cell in _ROWS]
    known = [[title, *cells] for title, cells in rows if any(cell is not None for cell in cells)]
    terminal.table(["", *views], known)


def _time(seconds: float) -> str:
    return "0" if not seconds else terminal.length(seconds)


def _percent(part: float | None) -> str | None:
    return None if part is None else f"{part:.1%}"


def _fairness(view: FairnessView | None) -> str | None:
    return None if view is None else f"{view.jain:.3f}, deviation {view.largest_deviation:.1%}"


_ROWS: list[tuple[str, Cell]] = [
    ("mean wait", lambda view: _time(view.mean_wait_s)),
    ("median wait", lambda view: _time(view.p50_wait_s)),
    ("95 % wait less than", lambda view: _time(view.p95_wait_s)),
    ("longest wait", lambda view: _time(view.max_wait_s)),
    ("mean bounded slowdown", lambda view: f"{view.mean_bounded_slowdown:.2f}"),
    ("utilisation, CPUs", lambda view: _percent(view.utilisation)),
    ("utilisation, memory", lambda view: _percent(view.memory_utilisation or None)),
    ("GPUs allocated", lambda view: _percent(view.gpu_allocation)),
    ("free GPUs unusable", lambda view: _percent(view.gpu_fragmentation)),
    ("fairness between users", lambda view: _fairness(view.fairness_between_users)),
    ("fairness between queues", lambda view: _fairness(view.fairness_between_queues)),
    ("jobs", lambda view: f"{view.jobs:,}"),
    ("elements started", lambda view: f"{view.started:,} of {view.elements:,}"),
    ("jobs that never ended", lambda view: f"{view.unfinished_jobs:,}" if view.unfinished_jobs else None),
    ("records left out", lambda view: f"{view.left_out:,}" if view.left_out else None),
    ("lengths guessed", lambda view: f"{view.guessed_lengths:,}" if view.guessed_lengths else None),
    ("from first to last", lambda view: _time(view.length_s)),
]
