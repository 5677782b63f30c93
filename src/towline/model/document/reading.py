"""One pass over one document: the problems found so far, and what the readers need to know.

Nothing here raises on bad input: a value that cannot be used is INVALID, and a problem is noted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from towline.errors import InvalidDocument, Problem
from towline.model import template
from towline.model.document.lines import Holder, Key, Lines, Where
from towline.model.document.yaml12 import resolve_plain
from towline.model.job import Need, Param
from towline.model.names import MAX_SHOWN, kind, shown, text_fault

MAX_PROBLEMS = 50
_MAX_KEPT = 2_000

Scope = Literal["plain", "params", "element"]
"""What ``{{…}}`` may stand for: nothing at all, parameters, or also the element's index and value."""


class _Invalid:
    """What a reader gives back for a value that it noted a problem about."""

    def __repr__(self) -> str:
        return "INVALID"


INVALID: Any = _Invalid()


class Reading:
    """The state of one pass. ``scope`` is that of the field being read."""

    def __init__(self, source: str = "", lines: Lines | None = None) -> None:
        self.source = source
        self.lines = lines
        self.params: Mapping[str, Param] = {}
        self.scope: Scope = "plain"
        self.problems: list[Problem] = []
        self.needs_seen: dict[str, Need] = {}
        """One Need for all edges to a task: a dense graph has tens of thousands of them."""
        self._more = 0
        self._failed: set[tuple[Key, ...]] = set()

    def bad(self, where: Where | None, message: str, remedy: str = "") -> Any:
        """Note a problem; returns INVALID."""
        keys = where.keys if where is not None else []
        self._failed.update(tuple(keys[:length]) for length in range(len(keys) + 1))
        if len(self.problems) == _MAX_KEPT:
            self._more += 1
            return INVALID
        line = self.lines.line(keys) if self.lines is not None else None
        path = str(where) if where is not None else ""
        self.problems.append(Problem(path, message, remedy, line))
        return INVALID

    def failed(self, *keys: Key) -> bool:
        """Whether a problem was noted at this path or below it."""
        return bool(self._failed) and keys in self._failed

    def finish(self) -> None:
        """Raises InvalidDocument if there were problems: in the order of the file, the first 50."""
        if not self.problems:
            return
        ordered = sorted(self.problems, key=lambda problem: problem.line or 0)
        more = len(ordered) - MAX_PROBLEMS + self._more
        if more > 0:
            ordered = [*ordered[:MAX_PROBLEMS], Problem("", f"and {more} more problems")]
        raise InvalidDocument(ordered, self.source)

    def scalar(self, holder: Holder, key: Any, where: Where, remedy: str = "write a finite number") -> Any:
        """A value that need not be text; with parameters replaced it is read as if written so.

        ``remedy`` is for NaN and infinities, which are never wanted.
        """
        value = holder[key]
        if isinstance(value, str):
            if "{{" in value and self.scope != "plain":
                text = self._substitute(value, where)
                return text if text is INVALID else resolve_plain(text)
            return value if text_fault(value) is None else self.bad(where, text_fault(value) or "")
        if isinstance(value, float) and not math.isfinite(value):
            written = self.lines.written(holder, key) if self.lines is not None else None
            said = shown(value) if written is None or len(written) > MAX_SHOWN else written
            return self.bad(where, f"is {said}, not a finite number", remedy)
        return value

    def text(self, holder: Holder, key: Any, where: Where) -> Any:
        """A text; numbers, true and false are taken as they were written, also in the tree itself."""
        value = holder[key]
        if isinstance(value, str):
            fault = text_fault(value)
            if fault is not None:
                return self.bad(where, fault)
            return self._substitute(value, where) if "{{" in value else value
        if value is None:
            return self.bad(where, "is empty, but has to be a text", 'write "" for an empty text')
        if not isinstance(value, bool | int | float):
            return self.bad(where, f"is {kind(value)}, but has to be a text", "quote it if it is one")
        written = self.as_written(holder, key)
        return written if written is not None else self.bad(where, f"is {shown(value)}", "quote it")

    def as_written(self, holder: Holder, key: Any) -> str | None:
        """The text of a number, true or false; None for numbers that no file could hold."""
        value = holder[key]
        if self.lines is None:
            return written_as(value)
        written = self.lines.written(holder, key)
        written = written if written is not None else written_as(value)
        if written is not None:
            holder[key] = written
        return written

    def _substitute(self, text: str, where: Where) -> Any:
        if self.scope == "plain":
            return text
        try:
            return template.substitute(text, self.params, element=self.scope == "element")
        except template.TemplateError as error:
            return self.bad(where, str(error), error.remedy)


def written_as(value: bool | int | float) -> str | None:
    """A number, true or false as JSON writes it; None for NaN, infinities and immense integers."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 1_000 else None
    return repr(value) if math.isfinite(value) else None
