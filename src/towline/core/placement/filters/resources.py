"""Filters on CPUs, memory, pids and disk."""

from __future__ import annotations

import numpy as np

from towline.core.placement.columns import CPU, DISK, MEMORY, PIDS, Column, Mask, NodeColumns
from towline.core.placement.filters.filter import Filter, Misfit
from towline.core.placement.shape import Shape
from towline.model.units import human_bytes, show_cpu

NAMES = ("cpu", "memory", "pids", "disk")


def asked_of(shape: Shape) -> tuple[int, int, int, int]:
    """What one element asks for of each resource, in the order of the columns."""
    return shape.cpu_milli, shape.memory_bytes, shape.pids, shape.disk_bytes


def _capacity(resource: int) -> Filter:
    """Whether an element would fit on the node if nothing else ran there."""

    def mask(nodes: NodeColumns, shape: Shape, columns: Column) -> Mask:
        return nodes.all_amounts[resource, columns] >= asked_of(shape)[resource]

    def why(nodes: NodeColumns, shape: Shape, columns: Column) -> list[Misfit]:
        best = amount(resource, int(nodes.all_amounts[resource, columns].max()))
        has = f"the node has {best}" if len(columns) == 1 else f"the largest has {best}"
        text = f"{amount(resource, asked_of(shape)[resource])} asked, {has}"
        return [Misfit(NAMES[resource], text, len(columns), best, permanent=True)]

    return Filter(NAMES[resource], True, mask, why)


def _free(resource: int) -> Filter:
    """Whether an element fits beside what runs on the node."""

    def mask(nodes: NodeColumns, shape: Shape, columns: Column) -> Mask:
        return nodes.free_amounts[resource, columns] >= asked_of(shape)[resource]

    def why(nodes: NodeColumns, shape: Shape, columns: Column) -> list[Misfit]:
        best = amount(resource, max(0, int(nodes.free_amounts[resource, columns].max())))
        free = f"{best} free" if len(columns) == 1 else f"at most {best} free"
        text = f"{amount(resource, asked_of(shape)[resource])} asked, {free}"
        return [Misfit(NAMES[resource], text, len(columns), best)]

    return Filter(NAMES[resource], False, mask, why)


def have_room(nodes: NodeColumns, shape: Shape, columns: Column) -> Mask:
    """What all of ``FREE`` say together, at the cost of one."""
    asked = np.array(asked_of(shape), dtype=np.int64)
    return np.logical_and.reduce(nodes.free_amounts.take(columns, axis=1) >= asked[:, None], axis=0)


def amount(resource: int, value: int) -> str:
    """A quantity of a resource in words: ``1.5 CPUs``, ``23 GiB``, ``256 pids``."""
    if resource == CPU:
        return f"{show_cpu(value)} CPU" + ("" if value == 1000 else "s")
    if resource in (MEMORY, DISK):
        return human_bytes(value) + (" of disk" if resource == DISK else "")
    return f"{value} pids"


CAPACITIES = tuple(_capacity(resource) for resource in (CPU, MEMORY, PIDS, DISK))
FREE = tuple(_free(resource) for resource in (CPU, MEMORY, PIDS, DISK))
