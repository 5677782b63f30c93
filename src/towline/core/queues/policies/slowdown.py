"""Towline's own: by the slowdown that waiting is expected to add, until patience ends.

The formula and its reasons stand in ``core.queues.age``.
"""

from __future__ import annotations

from towline.core.queues.age import age_key
from towline.core.queues.policies.order import Item, OrderKey


class Slowdown:
    name = "slowdown"
    learns = True

    def key(self, now_ms: int, item: Item) -> OrderKey:
        return age_key(now_ms, item.submitted_at, item.patient_until, item.standing)
