"""Which queues' keys are made anew in a pass: never so many that the pass becomes a slow one.

Keys grow old together, where queues came together: a hundred queues would all be due in the same pass,
and once more a second later. So a pass renews a bounded number of tasks, the oldest keys first; the
others' turn comes in the passes after it, and from then on they are due one after another.
"""

from __future__ import annotations

from collections.abc import Iterable

from towline.core.queues.backlog import Backlog
from towline.core.queues.tree import Queue

MOST = 100
"""Tasks whose keys a pass makes anew; more than that only where one queue has more by itself, and where
keys say nothing yet (of new queues, and after queues were changed)."""


def due(backlog: Backlog, queues: Iterable[Queue], now_ms: int) -> list[Queue]:
    """Those of these queues whose keys are to be made anew now."""
    found: list[Queue] = []
    tasks = 0
    for queue in sorted(queues, key=lambda queue: backlog.lines[queue].as_of_ms):
        line = backlog.lines[queue]
        if line.due(now_ms) and (tasks < MOST or not line.as_of_ms):
            found.append(queue)
            tasks += line.length
    return found
