"""Maxima of queues within one pass, and what is kept under them for those who are first in line."""

from __future__ import annotations

from towline.core.queues.amounts import Amounts
from towline.core.queues.tree import BOUNDLESS, Queue

ACTIVE = -1
"""Stands for ``max_active`` among the resources: every element asks for one of it."""


class Quotas:
    """What the first element that does not fit under a maximum lacks is kept for it from then on.

    Otherwise small elements behind it would take what large ones wait for, again and again. Amounts
    that no element can ever have under a maximum keep nothing.
    """

    def __init__(self) -> None:
        self._kept: dict[Queue, set[int]] = {}

    def room(self, queue: Queue, asked: Amounts) -> int:
        """How many elements that ask for so much each the queue, and all above it, allow now."""
        most = BOUNDLESS
        for above in queue.path:
            if above.max_active is None and not above.maximum:
                continue
            if self._kept and self._is_kept(above, asked):
                return 0
            most = min(most, above.room(asked))
            if not most:
                self._keep(above, asked)
                return 0
        return most

    def _is_kept(self, queue: Queue, asked: Amounts) -> bool:
        return any(at == ACTIVE or asked[at] for at in self._kept.get(queue, ()))

    def _keep(self, queue: Queue, asked: Amounts) -> None:
        if queue.never(asked) is None:
            self._kept.setdefault(queue, set()).update(queue.lacks(asked) or (ACTIVE,))
