"""Parts of all statements: values bound by name, constants that stand in the text, the dialect's insert."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Table, bindparam, literal_column

Insert = Callable[[Table], Any]
"""The dialect's own ``insert``, which knows ``on_conflict_do_update``."""

# Every limit has an offset of this: SQLite's dialect would bind a zero of its own otherwise.
ZERO: ColumnElement[int] = literal_column("0")
ONE: ColumnElement[int] = literal_column("1")


def p(name: str) -> BindParameter[Any]:
    """A value that has to be given, by this name."""
    return bindparam(name, required=True)
