"""Dot product (Grandl et al., "Multi-resource packing for cluster schedulers", SIGCOMM 2014), as the
openb experiments have it: the node where what is free is least in line with what is asked for.

CPU and GPU count as parts of the largest node there (128 CPUs, 8 GPUs).
"""

from __future__ import annotations

import numpy as np

from towline.core.placement.columns import Column, NodeColumns
from towline.core.placement.policies.bestfit import MAX_CPU_MILLI, MAX_GPU_MILLI
from towline.core.placement.shape import Shape


class DotProduct:
    """Scores of 0 to 100, cut to whole numbers."""

    name = "dotprod"

    def scores(self, view: NodeColumns, ask: Shape, columns: Column) -> Column:
        cpu = view.free_cpu_milli[columns] / MAX_CPU_MILLI * (ask.cpu_milli / MAX_CPU_MILLI)
        free = np.maximum(view.gpu_free_milli[columns], 0).sum(axis=1)
        gpu = free / MAX_GPU_MILLI * (ask.gpu_count * ask.gpu_milli / MAX_GPU_MILLI)
        return np.floor(np.maximum(100 * (1 - (cpu + gpu) / 2), 0)).astype(np.int64)
