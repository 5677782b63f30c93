"""Best fit, as the openb experiments have it: the node with the least CPU and GPU left afterwards.

Both count alike, each as a part of the largest node there (128 CPUs, 8 GPUs). Memory does not count.
"""

from __future__ import annotations

import numpy as np

from towline.core.placement.columns import Column, NodeColumns
from towline.core.placement.shape import Shape

MAX_CPU_MILLI, MAX_GPU_MILLI = 128_000, 8_000


class GpuBestFit:
    """Scores of 0 to 100, cut to whole numbers."""

    name = "bestfit"

    def scores(self, view: NodeColumns, ask: Shape, columns: Column) -> Column:
        cpu = view.free_cpu_milli[columns] - ask.cpu_milli
        gpu = np.maximum(view.gpu_free_milli[columns], 0).sum(axis=1) - ask.gpu_count * ask.gpu_milli
        left = (cpu / MAX_CPU_MILLI + gpu / MAX_GPU_MILLI) / 2
        return np.floor(np.maximum(100 * (1 - left), 0)).astype(np.int64)
