"""GPU packing (Weng et al., "MLaaS in the wild", NSDI 2022), as the openb experiments have it.

From high to low: devices that are shared already (the fuller the better), free devices of a node in use
(the fewer are needed the better), a node whose devices are all free (the fewer it has the better).
"""

from __future__ import annotations

import numpy as np

from towline.core.placement.columns import Column, NodeColumns
from towline.core.placement.shape import WHOLE_MILLI, Shape


class Packing:
    """Scores of 0 to 100. What asks for no GPU goes to the first node with room."""

    name = "packing"

    def scores(self, view: NodeColumns, ask: Shape, columns: Column) -> Column:
        if ask.gpu is None:
            return np.zeros(len(columns), dtype=np.int64)
        free = view.gpu_free_milli[columns]
        whole = (free == WHOLE_MILLI).sum(axis=1)
        idle = np.maximum(33 - whole, whole)
        if not ask.shares:
            return np.where(whole == view.gpu_count[columns], idle, max(50 - ask.gpu_count, 33))
        tightest = np.where(free >= ask.gpu_milli, free, 2 * WHOLE_MILLI).min(axis=1)
        shared = np.where(tightest == WHOLE_MILLI, 49, np.maximum(100 - tightest // 100, 50))
        return np.where(whole == view.gpu_count[columns], idle, shared)
