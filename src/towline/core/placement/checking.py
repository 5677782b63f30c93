"""Everything that must hold of the columns, derived again from scratch: for tests and simulations."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from towline.core.placement.choosing.candidates import Candidates
from towline.core.placement.columns import DISK, RESOURCES
from towline.core.placement.filters.conditions import kind_serves
from towline.core.placement.filters.resources import asked_of
from towline.core.placement.ledger import Ledger, parse_devices
from towline.core.placement.nodes import Nodes
from towline.core.placement.shape import WHOLE_MILLI, Shape


def check(nodes: Nodes, column: int, held: Iterable[tuple[Shape, str | None]]) -> str | None:
    """What is wrong with a node's columns, given all that elements hold on it; None: nothing.

    Amounts that are held beyond a node's capacity are no fault here: an attempt that was taken for lost
    may be taken back, and a node's capacity may shrink.
    """
    elements = list(held)
    used = np.array([asked_of(shape) for shape, _ in elements], dtype=np.int64).reshape(-1, RESOURCES)
    free = nodes.all_amounts[:, column] - used.sum(axis=0)
    if bool((free != nodes.free_amounts[:, column]).any()):
        return f"has {nodes.free_amounts[:, column]} free, really {free}"
    return _check_devices(nodes, column, elements)


def _check_devices(nodes: Nodes, column: int, elements: list[tuple[Shape, str | None]]) -> str | None:
    really = Ledger()
    really.put(nodes.entries[column].row.gpus)
    for shape, devices in elements:
        if devices is None:
            continue
        parts = parse_devices(devices)
        if len(parts) != shape.gpu_count or any(milli != shape.gpu_milli for _, milli in parts):
            return f"{devices!r} is not what {shape} asks for"
        really.hold(devices)
        known = {device.id: device.kind for device in (*really.whole, *really.slices)}
        for name, _ in parts:
            if name in known and not kind_serves(shape, known[name]):
                return f"device {name} does not serve {shape}"
    ledger = nodes.ledgers.get(column, Ledger())
    if ledger.held != really.held:
        return f"devices {ledger.held} are held, really {really.held}"
    row = nodes.device_free[column].tolist()
    if row[: len(really.whole)] != really.free_milli() or any(
        free != -1 for free in row[len(really.whole) :]
    ):
        return f"the column of devices is {row}, really {really.free_milli()}"
    return _check_slices(nodes, column, really)


def _check_slices(nodes: Nodes, column: int, really: Ledger) -> str | None:
    counts = {kind: free for kind, free in really.free_slices().items() if free}
    there = {nodes.kinds[at]: free.item(column) for at, free in nodes.slices_free.items()}
    if {kind: free for kind, free in there.items() if free} != counts:
        return f"slices {there} are free, really {counts}"
    return None


def oversubscribed(nodes: Nodes, column: int) -> str | None:
    """What of a node is promised more than once; None: nothing."""
    if bool((nodes.free_amounts[:DISK, column] < 0).any()):
        return f"amounts {nodes.free_amounts[:, column]} are free"
    ledger = nodes.ledgers.get(column, Ledger())
    over = {name: milli for name, milli in ledger.held.items() if milli > WHOLE_MILLI}
    return f"devices {over} are held more than once" if over else None


def check_candidates(nodes: Nodes, shape: Shape) -> str | None:
    """Whether what is remembered of a shape is what a fresh look says."""
    nodes.room(shape, 1)
    remembered = nodes.remembered(shape)
    fresh = Candidates(nodes, nodes.rules, shape)
    if remembered.fitting().tolist() != fresh.fitting().tolist():
        return f"{shape} fits, best first, on {remembered.fitting()}, really on {fresh.fitting()}"
    return None
