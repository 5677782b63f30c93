"""UNICEF: wait / (log2(processors) × time asked for), highest first; small and short ones soon.

Tang, Lan, Desai and Buettner, as for WFP3. The logarithm of one processor, which is 0, counts as that
of two.
"""

from __future__ import annotations

from towline.core.queues.age import log2_1024ths
from towline.core.queues.policies.order import Item, OrderKey

_SCALE_BITS = 64
_THOUSAND = log2_1024ths(1000)


class Unicef:
    name = "unicef"
    learns = False

    def key(self, now_ms: int, item: Item) -> OrderKey:
        size = max(log2_1024ths(item.size_milli) - _THOUSAND, 1024)
        score = (now_ms - item.submitted_at << _SCALE_BITS) // (size * max(item.limit_ms, 1))
        return -score, item.submitted_at
