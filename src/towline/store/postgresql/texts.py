"""Statements as SQL text for asyncpg: compiled at first use, once in a process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy.dialects.postgresql import dialect, insert

from towline.store.binding import compiled

__all__ = ["Text", "dialect_of_ours", "insert", "text", "without_zeros"]

dialect_of_ours = dialect(paramstyle="numeric_dollar")


class Text(NamedTuple):
    """A statement whose values are bound by place: those of these ``names``, in order."""

    sql: str
    names: tuple[str, ...]

    def bound(self, values: Mapping[str, Any]) -> list[Any]:
        return [without_zeros(values[name]) for name in self.names]


def without_zeros(value: Any) -> Any:
    """Text as PostgreSQL keeps it, which has no character 0; anything else as it is."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) and "\0" in value else value


@cache
def text(make: Callable[..., Any], *args: Any, **options: Any) -> Text:
    """The text of ``make(*args, **options)``. What inserts is given the dialect's ``insert``."""
    found = compiled(make, args, options, dialect_of_ours, insert)
    return Text(str(found), tuple(found.positiontup or ()))
