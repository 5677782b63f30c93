"""The nodes of a pool: which have room for a shape, and who holds what of them.

A filter gives a boolean for every node and the reason for those that it rejects; the pass places on
nodes that every filter lets through, so an explanation cannot disagree with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from towline.core.entries import Node
from towline.core.placement.choosing.candidates import NO, Candidates
from towline.core.placement.choosing.rules import Rules
from towline.core.placement.choosing.spreading import Room, spread_over
from towline.core.placement.columns import UNLIMITED, NodeColumns
from towline.core.placement.filters.conditions import kind_serves
from towline.core.placement.filters.filter import Misfit
from towline.core.placement.filters.misfits import one, reasons
from towline.core.placement.filters.resources import asked_of
from towline.core.placement.filters.standing import DRAINED, FAILS, OPEN, RUNS, UNCONNECTED
from towline.core.placement.ledger import Ledger
from towline.core.placement.shape import Shape
from towline.core.rows import NodeRow

BEST_TRIES = 8
"""So many nodes are looked for one by one, as the best that is left; for more, all are put in order."""
CACHE_BYTES = 128 * 1024**2
"""What the columns of keys of all shapes may take; the least recently used leave first."""
LEAST_CACHED = 16
LEAST_LOG = 4096


class Nodes(NodeColumns):
    """The columns, and what the pass does with them. ``rules``: how they are filtered and scored."""

    def __init__(self, rules: Rules | None = None) -> None:
        super().__init__()
        self.rules = rules or Rules()
        self._bytes = 0
        """What ``_shapes`` takes."""
        self._shapes: dict[Shape, Candidates] = {}
        """The most recently used last."""
        self._changed: list[int] = []
        """Columns in the order of their changes; ``_base`` entries have been dropped before them."""
        self._base = 0
        self._restated: list[int] = []
        """The same of what has nothing to do with the load; never dropped but with all of ``_shapes``."""

    # --- what nodes are -------------------------------------------------------------------------------
    def add(self, node: Node) -> None:
        """Append a node; its ``column`` must be the next one."""
        assert node.column == len(self.entries)
        self.reserve(node.column + 1)
        self.entries.append(node)
        self.refresh(node)

    def refresh(self, node: Node) -> None:
        """Take over a node's row and its being connected, after either changed."""
        at, row = node.column, node.row
        new = np.array([row.cpu_milli, row.memory_bytes, row.pids, row.disk_bytes or UNLIMITED])
        self.free_amounts[:, at] += new - self.all_amounts[:, at]
        self.all_amounts[:, at] = new
        self.state.put(at, _state(node))
        self.taints.put(at, row.taints)
        self.names.put(at, tuple(dict.fromkeys((row.name, row.id))))
        self._put_labels(at, row)
        self._put_runtimes(at, row)
        self._put_devices(at, row)
        self._restated.append(at)
        if len(self._restated) > max(LEAST_LOG, 2 * self.n):
            self._shapes.clear()
            self._bytes = 0
            self._restated.clear()
        self._note(at)

    def _put_labels(self, column: int, row: NodeRow) -> None:
        for key, value in row.labels.items():
            self.coded(self.labels, key).put(column, (value,))
        for key, coded in self.labels.items():
            if key not in row.labels:
                coded.put(column, ())

    def _put_runtimes(self, column: int, row: NodeRow) -> None:
        for name, problem in row.runtimes.items():
            works = problem is None
            value = (RUNS, *sorted(row.protects.get(name, ()))) if works else (FAILS, problem or "")
            self.coded(self.runtimes, name).put(column, value)
        for name, coded in self.runtimes.items():
            if name not in row.runtimes:
                coded.put(column, ())
        working = sorted(name for name, problem in row.runtimes.items() if problem is None)
        self.can_run.put(column, tuple(working))

    def _put_devices(self, column: int, row: NodeRow) -> None:
        ledger = self.ledgers.get(column)
        if ledger is None:
            if not row.gpus:
                return
            ledger = self.ledgers[column] = Ledger()
        ledger.put(row.gpus)
        self.put_devices(column, ledger)

    def _note(self, column: int) -> None:
        self.versions[column] += 1
        self._changed.append(column)
        if len(self._changed) > max(LEAST_LOG, 2 * self.n):
            self._base += len(self._changed)
            self._changed.clear()

    # --- what is held of them -------------------------------------------------------------------------
    def take(self, column: int, shape: Shape, count: int) -> list[str | None]:
        """Let ``count`` elements, which fit, hold their part of a node; returns the devices of each,
        as in AttemptRow."""
        self._add(column, shape, -count)
        if shape.gpu is None:
            return [None] * count
        ledger, serves = self.ledgers[column], partial(kind_serves, shape)
        given: list[str | None] = []
        for _ in range(count):
            wish = self.rules.device_for(self, shape, column)
            given.append(ledger.take(shape, serves, wish))
            self.put_free_devices(column, ledger)
        return given

    def next_devices(self, column: int, shape: Shape) -> str | None:
        """The devices that ``take`` would give one element, which fits; nothing is taken."""
        if shape.gpu is None:
            return None
        wish = self.rules.device_for(self, shape, column)
        return self.ledgers[column].choose(shape, partial(kind_serves, shape), wish)

    def hold(self, column: int, shape: Shape, devices: str | None) -> None:
        """One element holds its part of a node and these devices, whether or not it fits: it was
        placed before this leader came, or before it was lost."""
        self._add(column, shape, -1)
        if devices is not None:
            ledger = self.ledgers.setdefault(column, Ledger())
            ledger.hold(devices)
            self.put_free_devices(column, ledger)

    def give(self, column: int, shape: Shape, devices: str | None) -> None:
        """One element gives back what it held."""
        self._add(column, shape, 1)
        if devices is not None:
            ledger = self.ledgers[column]
            ledger.give(devices)
            self.put_free_devices(column, ledger)

    def _add(self, column: int, shape: Shape, times: int) -> None:
        for resource, asked in enumerate(asked_of(shape)):
            if asked:
                self.free_amounts[resource, column] += asked * times
        self._note(column)

    # --- where a shape fits ---------------------------------------------------------------------------
    def room(self, shape: Shape, limit: int | None = None, counts: Mapping[int, int] | None = None) -> Room:
        """(column, how many fit) of nodes with room, best first; empty where the shape fits nowhere.

        ``limit``: how many elements are to be placed; nodes that are not needed for them are left out.
        Under a policy whose scores move there may be fewer than that: only an empty list means that
        nothing fits, and whoever has more to place asks again.
        ``counts``: for a shape with ``spread``, how many of the task's elements are active on each
        column; the pairs then say how many go where for an even spread.
        """
        candidates = self.remembered(shape)
        if shape.spread is not None and (limit is None or limit > 0):
            columns = candidates.fitting()
            fitting = candidates.counts(columns)
            return spread_over(self, shape.spread, columns, fitting, limit, counts or {})
        if limit is not None:
            found = self._best(candidates, limit)
            if found is not None:
                return found
        columns = candidates.fitting() if limit is None else candidates.leading()
        fitting = candidates.counts(columns)
        if limit is not None:
            needed = int(np.searchsorted(np.cumsum(fitting), limit)) + 1
            columns, fitting = columns[:needed], fitting[:needed]
        return list(zip(columns.tolist(), fitting.tolist(), strict=True))

    def _best(self, candidates: Candidates, limit: int) -> Room | None:
        """The nodes for so many elements, one after another; None where it would take too many.

        Where scores move it is the node for one element: for the next one they will be others.
        """
        if candidates.keys is None:
            return []
        keys = candidates.keys[: self.n]
        found: Room = []
        hidden: list[tuple[int, int]] = []
        while len(hidden) < BEST_TRIES and limit > 0:
            column = int(keys.argmax())
            key = keys.item(column)
            if key == NO:
                limit = 0
                break
            if not candidates.settled(key):
                if not found:
                    return [(candidates.best_of(key), 1)]
                limit = 0
                break
            count = candidates.count_at(column)
            found.append((column, count))
            hidden.append((column, key))
            keys[column] = NO
            limit -= count
        for column, key in hidden:
            keys[column] = key
        if not found:
            self._bytes -= candidates.drop_keys()
        return found if limit <= 0 else None

    def remembered(self, shape: Shape) -> Candidates:
        """What is known of a shape, up to date."""
        candidates = self._shapes.pop(shape, None)
        here = self._base + len(self._changed)
        if candidates is None:
            candidates = Candidates(self, self.rules, shape)
            self._bytes += candidates.bytes
        elif candidates.seen < here:
            self._bytes -= candidates.bytes
            if candidates.seen < self._base or candidates.size != self.size:
                candidates.rebuild()
            else:
                self._catch_up(candidates)
            self._bytes += candidates.bytes
        candidates.seen, candidates.restated = here, len(self._restated)
        self._shapes[shape] = candidates
        while self._bytes > CACHE_BYTES and len(self._shapes) > LEAST_CACHED:
            self._bytes -= self._shapes.pop(next(iter(self._shapes))).bytes
        return candidates

    def _catch_up(self, candidates: Candidates) -> None:
        if candidates.restated < len(self._restated):
            restated = self._restated[candidates.restated :]
            candidates.restate(np.unique(np.array(restated, dtype=np.int64)))
        candidates.update(self._changed[candidates.seen - self._base :])

    # --- why not --------------------------------------------------------------------------------------
    def misfits(self, shape: Shape) -> list[Misfit]:
        """Why nodes cannot start an element of this shape now, grouped, most nodes first.

        Every node that has no room by ``room`` is counted in exactly one group, by the first filter that
        it fails; what does not depend on the load (``permanent``) is looked at first.
        """
        return reasons(self, shape, np.arange(self.n, dtype=np.int64), self.rules.filters)

    def first_misfit(self, shape: Shape, column: int) -> str | None:
        """Why an element of this shape cannot start on one node now; None: it can."""
        found = reasons(self, shape, one(column), self.rules.filters)
        return found[0].text if found else None


def _state(node: Node) -> tuple[str, ...]:
    if node.row.state != "ready":
        return (f"the node is {node.row.state}",)
    if not node.connected:
        return UNCONNECTED
    return OPEN if node.row.drain_at is None else DRAINED
