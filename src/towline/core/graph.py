"""What needs what within a job, by task position."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from towline.model.job import JobSpec


class Graph(NamedTuple):
    """Adjacency by position; ``needs`` counts the plain ones, ``each_needs`` lists the others."""

    needs: list[list[int]]
    each_needs: list[list[int]]
    dependents: list[list[int]]
    each_dependents: list[list[int]]


def build(spec: JobSpec) -> Graph:
    """The graph of a job. The model has checked names and cycles before."""
    positions = {name: at for at, name in enumerate(spec.tasks)}
    size = len(positions)
    graph = Graph(*([[] for _ in range(size)] for _ in range(4)))
    for at, task in enumerate(spec.tasks.values()):
        for need in task.needs:
            other = positions[need.task]
            if need.each:
                graph.each_needs[at].append(other)
                graph.each_dependents[other].append(at)
            else:
                graph.needs[at].append(other)
                graph.dependents[other].append(at)
    return graph


def in_order(graph: Graph) -> list[int]:
    """All tasks, each behind everything that it needs."""
    left = [len(plain) + len(each) for plain, each in zip(graph.needs, graph.each_needs, strict=True)]
    ready = deque(at for at, count in enumerate(left) if not count)
    order: list[int] = []
    while ready:
        at = ready.popleft()
        order.append(at)
        for other in (*graph.dependents[at], *graph.each_dependents[at]):
            left[other] -= 1
            if not left[other]:
                ready.append(other)
    return order
