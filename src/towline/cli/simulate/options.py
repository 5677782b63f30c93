"""What all traces share: their options, and how files and names are read."""

from __future__ import annotations

import re
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towline import garbage

if TYPE_CHECKING:
    from towline.simulation.described.policies import Setup

PolicyNames = Annotated[
    list[str] | None,
    typer.Option("--policy", metavar="NAME", help="A policy to replay with; several are compared."),
]
Policies = Annotated[
    Path | None, typer.Option("--policies", metavar="FILE", help="Policies with queues, shares and settings.")
]
ClusterFile = Annotated[
    Path | None, typer.Option("--cluster", metavar="FILE", help="Nodes in groups, in place of the trace's.")
]
AddNodes = Annotated[
    list[str] | None,
    typer.Option("--add-nodes", metavar="[GROUP=]N", help="Also with N nodes more; -10: ten fewer."),
]
Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw the comparison: .svg or .png.")
]
_TOLD_EVERY_S = 0.2
_CHANGE = re.compile(r"(?:([^=]+)=)?([+-]?[0-9]{1,6})\Z")


def read(reader: Callable[[Path], Any], path: Path, option: str) -> Any:
    """A trace's file. Raises InvalidDocument, also where it cannot be read."""
    from towline.errors import InvalidDocument, Problem

    try:
        return reader(path)
    except InvalidDocument as error:
        raise InvalidDocument(error.problems, error.source or str(path)) from error
    except (OSError, EOFError, zlib.error) as error:  # the last two of a compressed file that is broken
        said = getattr(error, "strerror", None) or error
        problem = Problem(option, f"{path} cannot be read: {said}", "name a file that can")
        raise InvalidDocument([problem]) from error


def refused(where: str, message: str, remedy: str) -> Exception:
    from towline.errors import InvalidDocument, Problem

    return InvalidDocument([Problem(where, message, remedy)])


def setups(
    names: Sequence[str] | None,
    file: Path | None,
    own: str,
    half_life_ms: int | None = None,
    *,
    orders: bool = True,
) -> list[Setup]:
    """The policies of the file and those named, in this order; without any, the one called ``own``.
    ``half_life_ms``: of usage, in those that are no file's. ``orders``: whether orders matter, so that
    they may be named. Raises InvalidDocument."""
    from towline.simulation.described.policies import named, read_policies

    found = [] if file is None else read_policies(file)
    by_name = named(names or ([] if found else [own]), orders=orders)
    if half_life_ms is not None:
        by_name = [each._replace(half_life_ms=half_life_ms) for each in by_name]
    found += by_name
    twice = {each.name for each in found if sum(other.name == each.name for other in found) > 1}
    if twice:
        raise refused("--policy", f"{min(twice)!r} is also in the file", "give that one another name")
    return found


def changes(given: Sequence[str] | None) -> dict[str | None, int]:
    """``-10`` or ``gpu=-2``. Raises InvalidDocument."""
    found: dict[str | None, int] = {}
    for text in given or ():
        match = _CHANGE.match(text)
        if match is None or not int(match[2]):
            raise refused("--add-nodes", f"is {text!r}", "write how many, such as -10, or gpu=4 of one group")
        found[match[1]] = found.get(match[1], 0) + int(match[2])
    return found


class Progress:
    """One line on a terminal's stderr that says how far it is; nothing elsewhere."""

    def __init__(self, what: str, total: int, things: str = "elements") -> None:
        self._what, self._total, self._things = what, total, things
        self._shown = sys.stderr.isatty()
        self._began = self._told = time.monotonic()

    def __enter__(self) -> Callable[[int], None]:
        # The pool that is simulated is as large as a server's, and is to cost what it costs there.
        garbage.settle()
        return self._tell

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _tell(self, done: int) -> None:
        if not self._shown:
            return
        now = time.monotonic()
        if now - self._told > _TOLD_EVERY_S:
            self._told = now
            rate = done / (now - self._began)
            line = f"{self._what}: {done:,} of {self._total:,} {self._things}, {rate:,.0f} a second"
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
