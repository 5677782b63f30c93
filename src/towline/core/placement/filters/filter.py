"""What a filter is: which nodes pass, and why the others do not.

Both answers come from the same columns, so that what the pass does and what ``explain`` says of it
cannot disagree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Protocol

from towline.core.placement.columns import Column, Mask, NodeColumns
from towline.core.placement.shape import Shape

NAMED = 3
"""How many different reasons of one filter are told one by one; the rest is summed up."""


class Misfit(NamedTuple):
    """Why some nodes cannot start an element of a shape now.

    ``kind`` is the filter's name; ``text`` is for people, without the count of ``nodes``; ``best`` is
    what comes nearest among them, where that is an amount. ``permanent``: the node would not take it
    even if nothing else ran there.
    """

    kind: str
    text: str
    nodes: int
    best: str | None = None
    permanent: bool = False


class Filter(NamedTuple):
    """``mask``: which of these columns pass. ``why``: the reasons of columns that do not, grouped; their
    counts add up to the number of columns. ``static``: what is free does not matter to it."""

    name: str
    static: bool
    mask: Callable[[NodeColumns, Shape, Column], Mask]
    why: Callable[[NodeColumns, Shape, Column], list[Misfit]]


class UserFilter(Protocol):
    """A filter of a user's own, from an entry point (see docs/guides/placement-plugins.md).

    It may read ``view`` and ``ask`` and has to depend on nothing else but the columns asked about: its
    answer for one of them is kept until that node changes.
    """

    name: str

    def mask(self, view: NodeColumns, ask: Shape, columns: Column) -> Mask:
        """A boolean for each of these columns: whether an element of this shape may go there."""
        ...

    def reason(self, view: NodeColumns, ask: Shape, column: int) -> str:
        """Why one may not, for people: a sentence of a few words."""
        ...


def user_filter(plugin: UserFilter) -> Filter:
    """Such a filter, as those of Towline's own are."""

    def why(nodes: NodeColumns, shape: Shape, columns: Column) -> list[Misfit]:
        reasons = [plugin.reason(nodes, shape, int(column)) for column in columns]
        return grouped(plugin.name, reasons, "rejected for other reasons")

    return Filter(plugin.name, False, plugin.mask, why)


def grouped(kind: str, reasons: list[str], others: str, *, permanent: bool = False) -> list[Misfit]:
    """The same reasons put together, the most frequent first; a long tail is summed up as ``others``."""
    counts = sorted(Counter(reasons).items(), key=lambda entry: (-entry[1], entry[0]))
    found = [Misfit(kind, text, count, None, permanent) for text, count in counts[:NAMED]]
    rest = sum(count for _, count in counts[NAMED:])
    if rest:
        found.append(Misfit(kind, others, rest, None, permanent))
    return found
