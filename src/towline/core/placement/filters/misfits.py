"""All filters in their order, and what the first that fails says: of one node, or of all, grouped."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from towline.core.placement.columns import Column, NodeColumns
from towline.core.placement.filters import gpus, resources
from towline.core.placement.filters.filter import Filter, Misfit
from towline.core.placement.filters.standing import STANDING
from towline.core.placement.shape import Shape

FILTERS: tuple[Filter, ...] = (
    *STANDING,
    *resources.CAPACITIES,
    gpus.HAS,
    *resources.FREE,
    gpus.FREE,
)
"""What does not change with the load comes first: it is the better reason to give."""


def reasons(nodes: NodeColumns, shape: Shape, columns: Column, filters: Iterable[Filter]) -> list[Misfit]:
    """The first misfit of each of these nodes that cannot start an element of this shape now.

    Grouped, most nodes first; those that could are in no group.
    """
    found: list[Misfit] = []
    for filter_ in filters:
        passed = filter_.mask(nodes, shape, columns)
        if not passed.all():
            found += filter_.why(nodes, shape, columns[~passed])
            columns = columns[passed]
    return sorted(found, key=lambda misfit: -misfit.nodes)


def misfits_text(found: Iterable[Misfit]) -> str:
    """``37 nodes: 2 CPUs asked, at most 1.5 free; 3 nodes: label zone=b wanted, is a``."""
    return "; ".join(f"{count_text(misfit.nodes)}: {misfit.text}" for misfit in found)


def count_text(nodes: int) -> str:
    return "1 node" if nodes == 1 else f"{nodes} nodes"


def one(column: int) -> Column:
    return np.array([column], dtype=np.int64)
