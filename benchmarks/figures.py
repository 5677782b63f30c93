"""Figures with their targets, and how they are printed. Nothing is asserted: a table is for people."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from msgspec import Struct


class Figure(Struct, kw_only=True):
    """One number. ``least`` or ``most`` is its target, if it has one; ``spread`` its lowest and highest."""

    name: str
    value: float
    unit: str = ""
    least: float | None = None
    most: float | None = None
    spread: tuple[float, float] | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.least is not None:
            return self.value >= self.least
        return None if self.most is None else self.value <= self.most


class Report(Struct, kw_only=True):
    """What one benchmark says: ``method`` is how it was measured, in a sentence or two."""

    name: str
    title: str
    method: str
    figures: list[Figure]


class Options(Struct, frozen=True, kw_only=True):
    """``scale`` shrinks the counts (1: those of the targets); ``pairs`` is how often things are compared."""

    pairs: int = 3
    scale: float = 1.0

    def count(self, full: int, least: int = 1) -> int:
        return max(least, round(full * self.scale))


def median_of(name: str, values: Sequence[float], unit: str = "", **more: object) -> Figure:
    """The median of several measurements, with the lowest and the highest beside it."""
    spread = (min(values), max(values)) if len(values) > 1 else None
    return Figure(name=name, value=statistics.median(values), unit=unit, spread=spread, **more)  # type: ignore[arg-type]


def shown(value: float) -> str:
    """Three or more digits that mean something: 1234, 12.3, 1.23, 0.0123."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    for limit, digits in ((100, 0), (10, 1), (1, 2), (0.1, 3)):
        if size >= limit:
            return f"{value:.{digits}f}"
    return "0" if size == 0 else f"{value:.4f}"


def _target(figure: Figure) -> str:
    if figure.least is not None:
        return f">= {shown(figure.least)}"
    return "" if figure.most is None else f"<= {shown(figure.most)}"


def _row(figure: Figure) -> list[str]:
    spread = "" if figure.spread is None else "{} to {}".format(*map(shown, figure.spread))
    verdict = {True: "met", False: "MISSED", None: ""}[figure.met]
    return [figure.name, shown(figure.value), figure.unit, _target(figure), verdict, spread, figure.note]


def table(report: Report) -> Iterable[str]:
    """The lines of a report: a heading, how it was measured, a row a figure."""
    header = ["", "median", "", "target", "", "spread", ""]
    cells = [header, *(_row(figure) for figure in report.figures)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    yield f"== {report.name}: {report.title}"
    yield f"   {report.method}"
    for row in cells:
        columns = [
            cell.rjust(width) if at == 1 else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield ("   " + "  ".join(columns)).rstrip()


def verdict(reports: Sequence[Report]) -> str:
    """How many targets were met, and the names of those that were not."""
    aimed = [(report, figure) for report in reports for figure in report.figures if figure.met is not None]
    missed = [f"{report.name}: {figure.name}" for report, figure in aimed if not figure.met]
    line = f"{len(aimed) - len(missed)} of {len(aimed)} targets met"
    return line if not missed else f"{line}; missed: {'; '.join(missed)}"
