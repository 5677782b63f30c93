"""Shortest first, by the time asked for; what is long may starve."""

from __future__ import annotations

from towline.core.queues.policies.order import Item, OrderKey


class Sjf:
    name = "sjf"
    learns = False

    def key(self, now_ms: int, item: Item) -> OrderKey:
        return item.limit_ms, item.submitted_at
