"""Which of the nodes that would do is the best: one number a node, the largest first.

From the most to the least important, each in bits of its own, so that no part outweighs one above it:

    the user's wishes     the weights of ``prefer`` that are met, and what a user's own scores add
    GPUs are kept         what asks for none goes to nodes without GPUs as long as others have room
    the pool's policy     by default best fit: the node that is left with the least, so that others
                          stay whole for what is large

Equal nodes go in the order of their columns. All numbers are integers: they tie alike in every process.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np

from towline.core.placement.columns import CPU, MEMORY, Column, NodeColumns
from towline.core.placement.filters.conditions import condition_mask
from towline.core.placement.shape import Shape

Key = TypeVar("Key", int, Column)

MAX_WISHES = 2**20 - 1
_POLICY_BITS = 41
_HALF = 2 ** (_POLICY_BITS - 1)
_KEEPS_GPUS = 2**_POLICY_BITS
_WISH = 2 ** (_POLICY_BITS + 1)

_WHOLE = 2**20
"""What is left of a node is counted in 2^20ths; memory in MiB, so that the products stay below 2^63."""
_MIB_BITS = 20


class Policy(Protocol):
    """How a pool packs its nodes.

    A score may depend on nothing but its own column and ``ask``: it is kept until that node changes.
    A policy with an attribute ``moving`` that is true looks at all nodes instead, and is asked again
    for each element; one with a method ``observe(ask, count)`` is told of elements that are queued.
    Scores below −2^40 or above 2^40 count as these.
    """

    name: str

    def scores(self, view: NodeColumns, ask: Shape, columns: Column) -> Column:
        """An integer for each of these columns, all of which have room for an element of this shape."""
        ...


class BestFit:
    """The node that is left with the least: of CPUs and memory, what it then has more of counts.

    So elements fill one node after another, and go where they take what is plentiful: a node whose CPUs
    are nearly gone gets what needs memory. On random small pools this places 95.4 % where the fullest
    node first places 94.9 % (benchmarks/packing.py).
    """

    name = "best-fit"

    def scores(self, view: NodeColumns, ask: Shape, columns: Column) -> Column:
        has, free = view.all_amounts, view.free_amounts
        cpu = _left(free[CPU, columns] - ask.cpu_milli, has[CPU, columns])
        mib = (free[MEMORY, columns] - ask.memory_bytes) >> _MIB_BITS
        return -np.maximum(cpu, _left(mib, has[MEMORY, columns] >> _MIB_BITS))


def _left(free: Column, has: Column) -> Column:
    return free * _WHOLE // np.maximum(has, 1)


def best_fit_of(nodes: NodeColumns, shape: Shape, column: int) -> int:
    """The score of one node, the same as ``BestFit`` gives it, without the cost of arrays."""
    has, free = nodes.all_amounts.item, nodes.free_amounts.item
    mib = (free(MEMORY, column) - shape.memory_bytes) >> _MIB_BITS
    return -max(
        (free(CPU, column) - shape.cpu_milli) * _WHOLE // max(has(CPU, column), 1),
        mib * _WHOLE // max(has(MEMORY, column) >> _MIB_BITS, 1),
    )


def compose(
    nodes: NodeColumns, shape: Shape, columns: Column, wishes: Column | int, policy: Column | int
) -> Column | int:
    """The numbers that order these columns, or the one of them all: 0 or above."""
    if isinstance(policy, int) and isinstance(wishes, int):
        keys: Column | int = _key(wishes, policy)
    else:
        keys = within_bits(policy) + _HALF + np.minimum(np.maximum(wishes, 0), MAX_WISHES) * _WISH
    if shape.gpu is not None:
        return keys
    return keys + (nodes.device_kinds.codes[columns] == 0) * _KEEPS_GPUS


def is_without_gpus(key: Key) -> Key:
    """Of what asks for no GPU: not 0 where a key is that of a node without GPUs."""
    return key & _KEEPS_GPUS


def within_bits(policy: Column | int) -> Column:
    """A policy's scores, those beyond its bits cut."""
    return np.minimum(np.maximum(policy, -_HALF), _HALF - 1)


def compose_one(nodes: NodeColumns, shape: Shape, column: int, wishes: int, policy: int) -> int:
    """The same of one column."""
    keeps = shape.gpu is None and nodes.device_kinds.codes.item(column) == 0
    key = _key(wishes, policy)
    return key + _KEEPS_GPUS if keeps else key


def _key(wishes: int, policy: int) -> int:
    return min(max(policy, -_HALF), _HALF - 1) + _HALF + min(max(wishes, 0), MAX_WISHES) * _WISH


def wishes_met(nodes: NodeColumns, shape: Shape, columns: Column) -> Column:
    """The weights of ``prefer`` that each of these columns meets, added up."""
    total = np.zeros(len(columns), dtype=np.int64)
    for wish in shape.prefer:
        total += condition_mask(nodes, wish.condition, columns) * np.int64(wish.weight)
    return total
