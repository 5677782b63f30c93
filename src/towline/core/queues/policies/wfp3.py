"""WFP3: (wait / time asked for)³ × processors, highest first.

Tang, Lan, Desai and Buettner, "Fault-aware, utility-based job scheduling on Blue Gene/P systems",
IEEE Cluster 2009.
"""

from __future__ import annotations

from towline.core.queues.policies.order import Item, OrderKey

_SCALE_BITS = 64


class Wfp3:
    name = "wfp3"
    learns = False

    def key(self, now_ms: int, item: Item) -> OrderKey:
        wait_ms, limit_ms = now_ms - item.submitted_at, max(item.limit_ms, 1)
        score = (wait_ms**3 * item.size_milli << _SCALE_BITS) // limit_ms**3
        return -score, item.submitted_at
