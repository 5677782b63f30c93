"""``spread``: the elements of a task go evenly over the values of a label.

The next element goes to the value that has the fewest of the task's active elements among those that
have room, and there to the best node. Nodes without the label come last.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heapreplace

import numpy as np

from towline.core.placement.columns import Coded, Column, NodeColumns

Room = list[tuple[int, int]]


def values_column(nodes: NodeColumns, key: str) -> Coded | None:
    """The property whose values are spread over: a label, or ``node``."""
    return nodes.names if key == "node" else nodes.labels.get(key)


def spread_over(
    nodes: NodeColumns,
    key: str,
    columns: Column,
    counts: Column,
    limit: int | None,
    active: Mapping[int, int],
) -> Room:
    """(column, elements) of an even spread.

    ``columns`` are those with room, best first, ``counts`` how many fit on each; ``active`` are the
    task's elements by column. At most ``limit`` elements are spread, as many as fit where it is None.
    """
    coded = values_column(nodes, key)
    codes = np.zeros(nodes.size, dtype=np.int32) if coded is None else coded.codes
    there: dict[int, int] = {}
    for column, count in active.items():
        code = codes.item(column)
        there[code] = there.get(code, 0) + count
    left: dict[int, list[list[int]]] = {}
    for rank, (column, count) in enumerate(zip(columns.tolist(), counts.tolist(), strict=True)):
        left.setdefault(codes.item(column), []).append([rank, column, count])
    heap = [(code == 0, there.get(code, 0), nodes_left[0][0], code) for code, nodes_left in left.items()]
    heapify(heap)
    for nodes_left in left.values():
        nodes_left.reverse()
    return _even(heap, left, int(counts.sum()) if limit is None else limit)


def _even(heap: list[tuple[bool, int, int, int]], left: dict[int, list[list[int]]], limit: int) -> Room:
    """Take one element after another from the value with the fewest; the results put together by node."""
    taken: dict[int, int] = {}
    while heap and limit > 0:
        without, count, _, code = heap[0]
        nodes_left = left[code]
        node = nodes_left[-1]
        taken[node[1]] = taken.get(node[1], 0) + 1
        node[2] -= 1
        limit -= 1
        if not node[2]:
            nodes_left.pop()
        if nodes_left:
            heapreplace(heap, (without, count + 1, nodes_left[-1][0], code))
        else:
            heappop(heap)
    return list(taken.items())
