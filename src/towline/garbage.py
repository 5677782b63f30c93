"""When the collector of cyclic garbage looks at everything: in a moment in which nothing waits.

A full collection visits every object of a pool: tens of milliseconds with ten thousand nodes, inside
whatever pass it comes upon. Nearly all that a server makes is freed without it, so it may wait.
"""

from __future__ import annotations

import gc

_YOUNG, _MIDDLE = 700, 10
"""As Python has them."""
_OLD = 500
"""A full collection comes by itself only after so many middle ones without a quiet moment between."""
_DUE = 20
"""In a quiet moment it is made after so many: some 140,000 objects have come, and stayed, since the last."""


def settle() -> None:
    """Before a server works: what was imported is never looked at again."""
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)


def collect_if_due() -> bool:
    """Nothing waits now: make a full collection if it is time for one; whether it was."""
    due = gc.get_count()[2] >= _DUE
    if due:
        gc.collect()
    return due
