"""The filter on GPUs: whole devices, a share of one, MIG slices; and how many elements they would take."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from towline.core.placement.columns import Column, Mask, NodeColumns
from towline.core.placement.filters.conditions import kind_serves
from towline.core.placement.filters.filter import Filter, Misfit, grouped
from towline.core.placement.shape import WHOLE_MILLI, Shape
from towline.model.units import human_bytes

MOST_REMEMBERED = 4096
"""Shapes of which it is remembered what serves them."""


def serving_kinds(nodes: NodeColumns, shape: Shape) -> Mask:
    """For each kind of device, and at the end (as −1) for none: whether it may be given to this shape."""
    serving = nodes.serving.get(shape)
    if serving is None or len(serving) != len(nodes.kinds) + 1:
        if len(nodes.serving) >= MOST_REMEMBERED:
            nodes.serving.clear()
        found = [kind_serves(shape, kind) for kind in nodes.kinds]
        serving = nodes.serving[shape] = np.array([*found, False], dtype=np.bool_)
    return serving


def elements_by_devices(nodes: NodeColumns, shape: Shape, columns: Column) -> Column:
    """How many elements of this shape, which asks for GPUs, the free devices of these nodes would take."""
    serves = serving_kinds(nodes, shape)
    if shape.gpu is not None and shape.gpu.slice is not None:
        return _slices(nodes.slices_free, serves, columns) // shape.gpu_count
    free = nodes.device_free[columns]
    if not serves[:-1].all():
        free = np.where(serves[nodes.device_kind[columns]], free, -1)
    if shape.shares:
        return (np.maximum(free, 0) // shape.gpu_milli).sum(axis=1)
    return (free >= WHOLE_MILLI).sum(axis=1) // shape.gpu_count


def _slices(counts: Mapping[int, Column], serves: Mask, columns: Column) -> Column:
    total = np.zeros(len(columns), dtype=np.int64)
    for kind, of_kind in counts.items():
        if serves[kind]:
            total += of_kind[columns]
    return total


def _devices(nodes: NodeColumns, shape: Shape, columns: Column) -> Column:
    """How many devices (or slices) of these nodes may be given to this shape, free or not."""
    serves = serving_kinds(nodes, shape)
    if shape.gpu is not None and shape.gpu.slice is not None:
        return _slices(nodes.slices_all, serves, columns)
    return serves[nodes.device_kind[columns]].sum(axis=1)


def _has(nodes: NodeColumns, shape: Shape, columns: Column) -> Mask:
    if shape.gpu is None:
        return np.ones(len(columns), dtype=np.bool_)
    return _devices(nodes, shape, columns) >= shape.gpu_count


def _has_free(nodes: NodeColumns, shape: Shape, columns: Column) -> Mask:
    if shape.gpu is None:
        return np.ones(len(columns), dtype=np.bool_)
    return elements_by_devices(nodes, shape, columns) > 0


# --- why not ------------------------------------------------------------------------------------------
def _why_never(nodes: NodeColumns, shape: Shape, columns: Column) -> list[Misfit]:
    asked = f"{gpu_text(shape)} asked"
    counts = _devices(nodes, shape, columns)
    texts = [
        f"{asked}, the node has {count or _inventory(nodes, int(column))}"
        for column, count in zip(columns, counts, strict=True)
    ]
    return grouped("gpu", texts, f"{asked}, has others", permanent=True)


def _inventory(nodes: NodeColumns, column: int) -> str:
    kinds = [nodes.kinds[int(kind)] for kind in nodes.device_kinds.at(column)]
    return ", ".join(_kind_text(*kind) for kind in kinds) or "none"


def _why_full(nodes: NodeColumns, shape: Shape, columns: Column) -> list[Misfit]:
    best = max(_nearest(nodes, shape, int(column)) for column in columns)
    free = f"{best / WHOLE_MILLI:g}" + (" of one" if shape.shares else "")
    most = "" if len(columns) == 1 else "at most "
    text = f"{gpu_text(shape)} asked, {most}{free} free"
    return [Misfit("gpu", text, len(columns), free)]


def _nearest(nodes: NodeColumns, shape: Shape, column: int) -> int:
    """Thousandths that are free for this shape: of the best device for a share, of whole ones else."""
    ledger = nodes.ledgers[column]
    devices = (*ledger.whole, *ledger.slices)
    free = [ledger.free(device) for device in devices if kind_serves(shape, device.kind)]
    if shape.shares:
        return max(free)
    return sum(milli for milli in free if milli == WHOLE_MILLI)


def gpu_text(shape: Shape) -> str:
    """What a shape asks for: ``0.5 of a GPU``, ``2 GPUs A100 or H100 with 20 GiB``, ``2 slices 1g.5gb``."""
    gpu = shape.gpu
    if gpu is None:
        return "no GPU"
    if gpu.slice is not None:
        text = f"{gpu.count} slice{'s' * (gpu.count > 1)} {gpu.slice}"
    elif shape.shares:
        text = f"{gpu.milli / WHOLE_MILLI:g} of a GPU"
    else:
        text = f"{gpu.count} GPU{'s' * (gpu.count > 1)}"
    if gpu.model:
        text += f" {' or '.join(gpu.model)}"
    return text if gpu.memory_bytes is None else f"{text} with {human_bytes(gpu.memory_bytes)}"


def _kind_text(model: str, memory_bytes: int, profile: str | None) -> str:
    text = model if profile is None else f"slices {profile} of {model}"
    return f"{text} with {human_bytes(memory_bytes)}"


HAS = Filter("gpu", True, _has, _why_never)
FREE = Filter("gpu", False, _has_free, _why_full)
