"""Parts of all statements: values bound by name, constants that stand in the text, the dialect's insert."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Dialect, Table, bindparam, literal_column

Insert = Callable[[Table], Any]
"""The dialect's own ``insert``, which knows ``on_conflict_do_update``."""

# Every limit has an offset of this: SQLite's dialect would bind a zero of its own otherwise.
ZERO: ColumnElement[int] = literal_column("0")
ONE: ColumnElement[int] = literal_column("1")


def compiled(
    make: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], dialect: Dialect, insert: Insert
) -> Any:
    """The statement ``make(*args, **options)`` in a dialect. What inserts is given the dialect's ``insert``.
    Constants that it binds would be lost with its text: they are a bug."""
    if not args and "insert" in signature(make).parameters:
        args = (insert,)
    found = make(*args, **options).compile(dialect=dialect)
    constants = {name for name, value in found.params.items() if value is not None}
    if constants:
        raise AssertionError(f"{make.__name__} binds constants, which the text would lose: {constants}")
    return found


def p(name: str) -> BindParameter[Any]:
    """A value that has to be given, by this name."""
    return bindparam(name, required=True)
