"""Queues as the API shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from towline.core.queues.amounts import CPU, GPU, NAMES, SCALE, dominant
from towline.core.queues.backlog import Backlog
from towline.core.queues.tree import Queue, QueueTree
from towline.model.views import QueueView


def entitled(tree: QueueTree, queue: Queue, busy: set[Queue]) -> int:
    """The share, in ``SCALE``, that weights alone give a queue among those that are ``busy``."""
    share = SCALE
    for level in queue.path:
        rivals = [other for other in tree.siblings(level) if other in busy or other is level]
        weights = [other.row.weight_milli for other in rivals]
        share = share * level.row.weight_milli // sum(weights)
    return share


def busy(tree: QueueTree, backlog: Backlog) -> set[Queue]:
    """Queues that hold something, or that have, or below which is, something to place."""
    found = {queue for queue in tree.queues.values() if queue.active}
    for queues in backlog.shapes.values():
        for queue in queues:
            found.update(queue.path)
    return found


def show(tree: QueueTree, backlog: Backlog, capacity: list[int], names: Iterable[str]) -> list[QueueView]:
    """These queues, in order. The cost is that of the tasks queued."""
    queued: dict[Queue, int] = {}
    for task in backlog.tasks():
        for queue in task.job.queue.path:
            queued[queue] = queued.get(queue, 0) + task.placeable
    working = busy(tree, backlog)
    return [
        _view(tree.queues[name], capacity, entitled(tree, tree.queues[name], working), queued)
        for name in names
    ]


def _view(queue: Queue, capacity: list[int], fair_share: int, queued: Mapping[Queue, int]) -> QueueView:
    share, resource = dominant(queue.held, capacity)
    row = queue.row
    return QueueView(
        name=row.name,
        parent=row.parent,
        weight=row.weight_milli / 1000,
        guaranteed=amounts(row.guaranteed),
        maximum=amounts(row.maximum),
        max_priority=row.max_priority,
        max_active=row.max_active,
        share=_fraction(share),
        fair_share=_fraction(fair_share),
        dominant=NAMES[resource],
        held=amounts(dict(zip(NAMES, queue.held, strict=True))),
        active=queue.active,
        queued=queued.get(queue, 0),
        jobs=queue.jobs,
    )


def amounts(given: Mapping[str, int]) -> dict[str, float]:
    """In units of people: CPUs and devices instead of thousandths."""
    milli = (NAMES[CPU], NAMES[GPU])
    return {name: amount / 1000 if name in milli else amount for name, amount in given.items()}


def _fraction(share: int) -> float:
    return (share * 1_000_000 // SCALE) / 1_000_000
