"""Amounts of resources as queues count them, and shares of the pool as integers that tie alike everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from towline.model.job import Resources
from towline.model.units import human_bytes, show_cpu

NAMES = ("cpu", "memory", "gpu", "pids")
"""Names of resources in a queue's row; milli-CPUs, bytes, thousandths of a device, pids."""
CPU, MEMORY, GPU, PIDS = range(4)
SHARED = (CPU, MEMORY, GPU)
"""What makes a share of the pool. Pids are as many as a node's kernel allows: they bound, and are no
share of anything that somebody paid for."""

Amounts = tuple[int, int, int, int]
NOTHING: Amounts = (0, 0, 0, 0)

SCALE = 10**12
"""A share of 1: all that the pool has of a resource."""


def asked_by(resources: Resources) -> Amounts:
    """What one element asks for."""
    gpu = resources.gpu
    milli = 0 if gpu is None else gpu.count * gpu.milli
    return resources.cpu_milli, resources.memory_bytes, milli, resources.pids


def from_row(given: Mapping[str, int]) -> dict[int, int]:
    """Amounts of a queue's row by position; resources that are not named stay out."""
    return {at: given[name] for at, name in enumerate(NAMES) if name in given}


def dominant(held: Sequence[int], capacity: Sequence[int]) -> tuple[int, int]:
    """(share, resource) of the resource of which ``held`` is the largest part of ``capacity``.

    The dominant share of Ghodsi et al., "Dominant Resource Fairness" (NSDI 2011), in ``SCALE``.
    """
    share, resource = 0, CPU
    for at in SHARED:
        some, whole = held[at], capacity[at]
        if some and whole:
            part = some * SCALE // whole
            if part > share:
                share, resource = part, at
    return share, resource


def shown(resource: int, amount: int) -> str:
    """An amount in words: ``1.5 CPUs``, ``23 GiB``, ``2 GPUs``, ``256 pids``."""
    if resource == CPU:
        return f"{show_cpu(amount)} CPU" + ("" if amount == 1000 else "s")
    if resource == MEMORY:
        return human_bytes(amount)
    if resource == GPU:
        return f"{show_cpu(amount)} GPU" + ("" if amount == 1000 else "s")
    return f"{amount} pids"


def percent(share: int) -> str:
    """A share in ``SCALE`` as people read it: ``12.5%``."""
    permille = (share * 1000 + SCALE // 2) // SCALE
    return f"{permille // 10}.{permille % 10}%" if permille % 10 else f"{permille // 10}%"
