"""Statements as SQL text for the plain driver: compiled at first use, once in a process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from inspect import signature
from typing import Any

from sqlalchemy.dialects.sqlite import dialect, insert

__all__ = ["insert", "positional", "text"]

_named = dialect(paramstyle="named")
_by_position = dialect(paramstyle="qmark")


@cache
def text(make: Callable[..., Any], *args: Any, **options: Any) -> str:
    """The text of ``make(*args, **options)``; values are given to the driver by name. What inserts is
    given the dialect's ``insert``."""
    if not args and "insert" in signature(make).parameters:
        args = (insert,)
    compiled = make(*args, **options).compile(dialect=_named)
    constants = {name for name, value in compiled.params.items() if value is not None}
    if constants:
        raise AssertionError(f"{make.__name__} binds constants, which the text would lose: {constants}")
    return str(compiled)


@cache
def positional(make: Callable[..., Any], layout: Any, columns: Sequence[str]) -> str:
    """The text of ``make(insert, layout)``, which binds ``columns`` in this order."""
    compiled = make(insert, layout).compile(dialect=_by_position)
    if tuple(compiled.positiontup) != tuple(columns):
        raise AssertionError(f"{make.__name__} binds {compiled.positiontup}, not {columns}")
    return str(compiled)
