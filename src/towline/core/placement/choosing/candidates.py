"""The nodes that one shape fits on, in order, kept up to date with little work.

For each shape there is one column of keys: how good a node is, or −1 where an element cannot start.
Nodes note in a log which column has changed; a shape looks again only at what changed since it was
last asked. The best node is then the largest key. Where a shape fits nowhere, as most do in a full
pool, there is no column.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from towline.core.placement.choosing.rules import Rules
from towline.core.placement.choosing.scores import (
    best_fit_of,
    compose,
    compose_one,
    is_without_gpus,
    wishes_met,
    within_bits,
)
from towline.core.placement.columns import CPU, DISK, MEMORY, PIDS, Column, Mask, NodeColumns
from towline.core.placement.filters.gpus import elements_by_devices
from towline.core.placement.filters.resources import asked_of, have_room
from towline.core.placement.shape import Shape

FEW = 12
"""So many changed columns are looked at one by one, more of them with arrays."""
NO = -1


class Candidates:
    """One shape's view of the nodes. ``seen`` and ``restated`` say how far it has read the two logs."""

    __slots__ = (
        "asked",
        "keys",
        "moving",
        "nodes",
        "restated",
        "rules",
        "seen",
        "shape",
        "standing",
        "wishes",
    )

    def __init__(self, nodes: NodeColumns, rules: Rules, shape: Shape) -> None:
        self.nodes, self.rules, self.shape = nodes, rules, shape
        self.asked = asked_of(shape)
        self.moving = rules.moving(shape)
        """The part of a policy whose scores move is not in the keys: it holds only until the next
        placement."""
        self.seen = self.restated = 0
        self.rebuild()

    def rebuild(self) -> None:
        """Look at every node."""
        size, n = self.nodes.size, self.nodes.n
        self.keys: Column | None = None
        self.standing: Mask = np.zeros(size, dtype=np.bool_)
        """What the filters say that have nothing to do with the load."""
        self.wishes: NDArray[np.int32] | None = np.zeros(size, dtype=np.int32) if self.shape.prefer else None
        everything = np.arange(n, dtype=np.int64)
        self.restate(everything)
        self.evaluate(everything)

    @property
    def size(self) -> int:
        """For how many columns it has room."""
        return len(self.standing)

    @property
    def bytes(self) -> int:
        arrays = (self.keys, self.standing, self.wishes)
        return sum(array.nbytes for array in arrays if array is not None)

    def fitting(self) -> Column:
        """The columns with room, best first."""
        if self.keys is None:
            return np.zeros(0, dtype=np.int64)
        columns = np.flatnonzero(self.keys != NO)
        return columns[np.argsort(-self._now(columns), kind="stable")]

    def leading(self) -> Column:
        """The columns with room whose keys are settled and above those that are not, best first."""
        if self.keys is None or not self.moving:
            return self.fitting()
        open_ones = self.keys[is_without_gpus(self.keys) == 0]
        columns = np.flatnonzero(self.keys > open_ones.max(initial=NO))
        return columns[np.argsort(-self.keys[columns], kind="stable")]

    def settled(self, key: int) -> bool:
        """Whether a key is complete: of what asks for no GPU, those of nodes without GPUs may be, where
        others are not."""
        if not self.moving:
            return True
        return not self.rules.plain_moves and self.shape.gpu is None and bool(is_without_gpus(key))

    def best_of(self, key: int) -> int:
        """The best column of those that have this key, which is the largest and not settled."""
        assert self.keys is not None
        columns = np.flatnonzero(self.keys == key)
        return int(columns[self._now(columns).argmax()])

    def _now(self, columns: Column) -> Column:
        """The keys of columns with room, complete."""
        assert self.keys is not None
        keys = self.keys[columns]
        if self.moving:
            keys += within_bits(self.rules.scores_of(self.nodes, self.shape, columns, moving=True))
        return keys

    def restate(self, columns: Column) -> None:
        """What these nodes are has changed (labels, taints, state, capacity)."""
        passed = np.ones(len(columns), dtype=np.bool_)
        for filter_ in self.rules.static:
            passed &= filter_.mask(self.nodes, self.shape, columns)
        self.standing[columns] = passed
        if self.wishes is not None:
            self.wishes[columns] = wishes_met(self.nodes, self.shape, columns)

    def evaluate(self, columns: Column) -> None:
        """What is free on these nodes has changed."""
        nodes, shape, rules = self.nodes, self.shape, self.rules
        if self.keys is not None:
            self.keys[columns] = NO
        left = columns[self.standing[columns]]
        left = left[have_room(nodes, shape, left)]
        for filter_ in rules.further:
            if not len(left):
                return
            left = left[filter_.mask(nodes, shape, left)]
        if not len(left):
            return
        wishes = rules.user_scores(nodes, shape, left)
        if self.wishes is not None:
            wishes = self.wishes[left].astype(np.int64) + wishes
        scores = rules.scores_of(nodes, shape, left, moving=False)
        self._all_keys()[left] = compose(nodes, shape, left, wishes, scores)

    def drop_keys(self) -> int:
        """Nothing fits: the column is given up. Returns the bytes that it took."""
        before = 0 if self.keys is None else self.keys.nbytes
        self.keys = None
        return before

    def _all_keys(self) -> Column:
        if self.keys is None:
            self.keys = np.full(self.nodes.size, NO, dtype=np.int64)
        return self.keys

    def update(self, changed: list[int]) -> None:
        """The same for columns of which some may be named twice; cheap where they are few."""
        if len(changed) > FEW:
            self.evaluate(np.array(list(dict.fromkeys(changed)), dtype=np.int64))
            return
        keys = self.keys
        left = [
            column
            for column in dict.fromkeys(changed)
            if self._has_amounts(column) or (keys is not None and keys.item(column) != NO)
        ]
        if not left:
            return
        if self.shape.gpu is not None or not self.rules.quick:
            self.evaluate(np.array(left, dtype=np.int64))
            return
        keys = self._all_keys()
        for column in left:
            keys[column] = self._key(column)

    def _has_amounts(self, column: int) -> bool:
        """Whether one element fits on a node, GPUs and a user's own filters left out."""
        free, asked = self.nodes.free_amounts.item, self.asked
        return (
            free(CPU, column) >= asked[CPU]
            and free(MEMORY, column) >= asked[MEMORY]
            and free(PIDS, column) >= asked[PIDS]
            and free(DISK, column) >= asked[DISK]
            and self.standing.item(column)
        )

    def _key(self, column: int) -> int:
        """One node's key, for a shape without GPUs under the usual rules."""
        if not self._has_amounts(column):
            return NO
        wishes = 0 if self.wishes is None else self.wishes.item(column)
        moves = self.moving and self.nodes.device_kinds.codes.item(column) != 0
        score = 0 if moves else best_fit_of(self.nodes, self.shape, column)
        return compose_one(self.nodes, self.shape, column, wishes, score)

    # --- how many -------------------------------------------------------------------------------------
    def count_at(self, column: int) -> int:
        """How many elements fit on a node that has room for one."""
        if self.shape.gpu is not None:
            return int(self.counts(np.array([column], dtype=np.int64))[0])
        free = self.nodes.free_amounts.item
        return min(free(at, column) // asked for at, asked in enumerate(self.asked) if asked)

    def counts(self, columns: Column) -> Column:
        """The same of several."""
        asked = np.array(self.asked, dtype=np.int64)
        resources = np.flatnonzero(asked)
        free = self.nodes.free_amounts[np.ix_(resources, columns)]
        counts = (free // asked[resources][:, None]).min(axis=0)
        if self.shape.gpu is None:
            return counts
        return np.minimum(counts, elements_by_devices(self.nodes, self.shape, columns))
