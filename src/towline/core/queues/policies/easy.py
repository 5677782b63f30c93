"""EASY: first come, first served, with a reservation for the first that does not fit.

Lifka, "The ANL/IBM SP Scheduling System", JSSPP 1995.
"""

from __future__ import annotations

from towline.core.queues.policies.order import Item, OrderKey


class Easy:
    name = "easy"
    learns = False

    def key(self, now_ms: int, item: Item) -> OrderKey:
        return (item.submitted_at,)
