"""EASY whose backfilling takes the shortest first.

Tsafrir, Etsion and Feitelson, "Backfilling Using System-Generated Predictions Rather than User Runtime
Estimates", IEEE TPDS 18(6), 2007, call it shortest job backfilled first.
"""

from __future__ import annotations

from towline.core.queues.policies.easy import Easy
from towline.core.queues.policies.order import Item, OrderKey


class EasySjf(Easy):
    name = "easy-sjf"

    def backfill_key(self, now_ms: int, item: Item) -> OrderKey:
        return item.limit_ms, item.submitted_at
