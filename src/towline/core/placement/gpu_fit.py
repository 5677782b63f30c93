"""What elements take of a node's devices, as arrays.

A share is taken from the device with the least left that has room for it, so that whole devices stay
whole; an element with whole devices gets the first free ones. The ledger gives devices by the same rule.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from towline.core.placement.columns import Column
from towline.core.placement.shape import WHOLE_MILLI

_NOT = 2 * WHOLE_MILLI
"""More than any device has: no candidate for a share."""


def least_level(gpu_milli: NDArray[np.int64], milli: int) -> Column:
    """What, on each node, the device with the least left that has room for a share has free."""
    return np.where(gpu_milli >= milli, gpu_milli, _NOT).min(axis=1)


def without_whole(gpu_milli: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The devices with so many whole ones taken: the first that are free."""
    whole = gpu_milli == WHOLE_MILLI
    return np.where(whole & (whole.cumsum(axis=1) <= count), 0, gpu_milli)
