"""Reads as plans: generators that ask for the rows of a statement and are sent them.

A plan knows no driver. Each store runs it in its own way, the whole of it in one snapshot.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from msgspec import Struct

from towline.store.codec import Layout

R = TypeVar("R", bound=Struct)
T = TypeVar("T")

Cells = Sequence[Any]


class Ask(NamedTuple):
    """The rows of ``make(*args, **options)`` with these values, by name. With ``stream`` they go by it, in
    one call or several, and nothing is sent back: a million rows take no memory."""

    make: Callable[..., Any]
    values: Mapping[str, Any]
    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = {}
    stream: Callable[[Iterable[Cells]], None] | None = None


Plan = Generator[Ask, Iterable[Cells], T]


def rows(
    layout: Layout[R], make: Callable[..., Any], values: Mapping[str, Any], **options: Any
) -> Plan[list[R]]:
    """The rows of a statement. Raises Damaged."""
    decode = layout.decode
    return [decode(cells) for cells in (yield Ask(make, values, options=options))]


def first(make: Callable[..., Any], values: Mapping[str, Any]) -> Plan[Cells | None]:
    """The cells of the first row, where there is one."""
    return next(iter((yield Ask(make, values))), None)


class Running(ABC):
    """What a store has to bring: the parts of the port that are mixed into it say everything with these.

    ``urgent`` is what must not wait behind anything slow."""

    @abstractmethod
    async def _read(self, plan: Plan[T], *, single: bool = False, urgent: bool = False) -> T:
        """Run a plan in one snapshot. ``single``: it asks for one statement only."""

    @abstractmethod
    async def _change(
        self, make: Callable[..., Any], values: Mapping[str, Any], *, urgent: bool = False
    ) -> int:
        """Run one statement in a transaction of its own; the number of rows that it changed."""

    @abstractmethod
    async def _change_shared(self, make: Callable[..., Any], values: Mapping[str, Any]) -> int:
        """As ``_change``; where it has changed something, that is counted in the same transaction, for
        ``shared_state``."""

    @abstractmethod
    async def _change_each(
        self, make: Callable[..., Any], many: Sequence[Mapping[str, Any]], *, urgent: bool = False
    ) -> Sequence[int]:
        """Run one statement with each of these values, all in one transaction; the rows changed by each."""
