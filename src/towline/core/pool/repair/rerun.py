"""Which elements of a job run again on request: a pure function of how its elements have ended.

An element that was placed had all that it needs, and what has succeeded stays so: it only has to queue
again. One that ended unplaced (skipped, cancelled) may come back as far as nothing that it needs stays
without success; what was skipped does so by itself, wherever the cause of it runs again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from towline.core.arrays import IndexSet, Range
from towline.core.graph import Graph, in_order
from towline.model.states import ElementState

FAILED, CANCELLED = ElementState.FAILED.value, ElementState.CANCELLED.value
SKIPPED = ElementState.SKIPPED.value
UNSUCCESSFUL = (FAILED, CANCELLED, SKIPPED)


class Standing(NamedTuple):
    """How a task's elements have ended so far. ``placed`` and ``unplaced`` are those without success of
    which there is a record: only they can run again."""

    first: int
    last: int
    ended: dict[str, IndexSet]
    placed: IndexSet
    unplaced: IndexSet


class Again(NamedTuple):
    """What of a task runs again: elements that have a row, and those that were never placed."""

    placed: IndexSet
    unplaced: IndexSet

    @property
    def names_nothing(self) -> bool:
        return not self.placed and not self.unplaced

    @property
    def ranges(self) -> list[Range]:
        return list(IndexSet([*self.placed.ranges(), *self.unplaced.ranges()]).ranges())


def choose(
    graph: Graph, tasks: list[Standing], wanted: dict[int, IndexSet], *, failed_only: bool
) -> list[Again]:
    """``wanted``: the elements in question, by task. With ``failed_only`` what was cancelled stays so."""
    states = (FAILED,) if failed_only else (FAILED, CANCELLED)
    stuck: dict[int, IndexSet] = {}
    """By task, what stays without success."""
    chosen: dict[int, Again] = {}
    for at in in_order(graph):
        task = tasks[at]
        mine = wanted.get(at, IndexSet())
        free = _free(graph, stuck, at, task)
        placed = IndexSet()
        unplaced = meet(meet(task.ended[SKIPPED], task.unplaced.ranges()), free)
        for state in states:
            asked = meet(task.ended[state], mine.ranges())
            _add(placed, meet(asked, task.placed.ranges()))
            if state == CANCELLED:
                _add(unplaced, meet(meet(asked, task.unplaced.ranges()), free))
        chosen[at] = Again(placed, unplaced)
        stuck[at] = left = IndexSet(part for state in UNSUCCESSFUL for part in task.ended[state].ranges())
        for lo, hi in chosen[at].ranges:
            left.remove(lo, hi)
    return [chosen[at] for at in range(len(tasks))]


def meet(indexes: IndexSet, ranges: Iterable[Range]) -> IndexSet:
    """Those of ``indexes`` that lie in one of ``ranges``."""
    return IndexSet(part for lo, hi in ranges for part in indexes.within(lo, hi))


def _add(to: IndexSet, more: IndexSet) -> None:
    for lo, hi in more.ranges():
        to.add(lo, hi)


def _free(graph: Graph, stuck: dict[int, IndexSet], at: int, task: Standing) -> list[Range]:
    """The elements of a task that need nothing that stays without success."""
    if any(stuck[need] for need in graph.needs[at]):
        return []
    free = [(task.first, task.last)]
    for need in graph.each_needs[at]:
        free = [part for lo, hi in free for part in stuck[need].missing(lo, hi)]
    return free
