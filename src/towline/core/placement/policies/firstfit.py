"""First fit: the first node with room."""

from __future__ import annotations

import numpy as np

from towline.core.placement.columns import Column, NodeColumns
from towline.core.placement.shape import Shape


class FirstFit:
    """All nodes are equally good, and equal ones go in the order of their columns."""

    name = "firstfit"

    def scores(self, view: NodeColumns, ask: Shape, columns: Column) -> Column:
        return np.zeros(len(columns), dtype=np.int64)
