"""Statements as SQL text for the plain driver: compiled at first use, once in a process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from sqlalchemy.dialects.sqlite import dialect, insert

from towline.store.binding import compiled

__all__ = ["insert", "positional", "text"]

_named = dialect(paramstyle="named")
_by_position = dialect(paramstyle="qmark")


@cache
def text(make: Callable[..., Any], *args: Any, **options: Any) -> str:
    """The text of ``make(*args, **options)``; values are given to the driver by name. What inserts is
    given the dialect's ``insert``."""
    return str(compiled(make, args, options, _named, insert))


@cache
def positional(make: Callable[..., Any], layout: Any, columns: Sequence[str]) -> str:
    """The text of ``make(insert, layout)``, which binds ``columns`` in this order."""
    found = make(insert, layout).compile(dialect=_by_position)
    if tuple(found.positiontup) != tuple(columns):
        raise AssertionError(f"{make.__name__} binds {found.positiontup}, not {columns}")
    return str(found)
