"""The rows of the table: what is measured, what others have reached, what we must and want to reach."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from benchmarks.figures import shown


class Row(Struct, kw_only=True):
    """``must`` and ``aim`` are bounds of ``ours``: from below, unless ``lower`` says that less is better.
    ``peers``: published or measured numbers of others; ``other``: they are not the same measure."""

    measure: str
    unit: str
    ours: float
    must: float
    aim: float | None = None
    peers: str = "—"
    other: bool = False
    lower: bool = False
    note: str = ""

    def reaches(self, bound: float) -> bool:
        return self.ours <= bound if self.lower else self.ours >= bound

    @property
    def verdict(self) -> str:
        if not self.reaches(self.must):
            return f"MISSED by {shown(abs(self.ours - self.must))}"
        return "aim" if self.aim is not None and self.reaches(self.aim) else "must"


def table(rows: Sequence[Row]) -> Iterable[str]:
    """The lines of the table, and what its marks mean."""
    header = ["measure", "ours", "", "reached", "must", "aim", "published or measured best", ""]
    notes = list(dict.fromkeys(row.note for row in rows if row.note))
    cells = [header, *(_cells(row, notes) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for at, row in enumerate(cells):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if at == 0:
            yield "  ".join("-" * width for width in widths).rstrip()
    if any(row.other for row in rows):
        yield "*  another measure, or another machine: it gives the order of magnitude only"
    yield from (f"{number}  {note}" for number, note in enumerate(notes, 1))
    missed = [row.measure for row in rows if not row.reaches(row.must)]
    which = f"; missed: {', '.join(missed)}" if missed else ""
    yield f"{len(rows) - len(missed)} of {len(rows)} reached{which}"


def _cells(row: Row, notes: Sequence[str]) -> list[str]:
    sign = "<=" if row.lower else ">="
    aim = "" if row.aim is None else f"{sign} {_number(row.aim)}"
    note = str(notes.index(row.note) + 1) if row.note else ""
    must = f"{sign} {_number(row.must)}"
    peers = row.peers + "*" * row.other
    return [row.measure, _number(row.ours), row.unit, row.verdict, must, aim, peers, note]


def _number(value: float) -> str:
    """Two digits behind the point where they say something."""
    return f"{value:.2f}" if 0 < abs(value) < 100 and value != int(value) else shown(value)
