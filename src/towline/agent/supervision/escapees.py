"""Processes of an attempt that left its process group: known by the TOW_ variables they were given.

A program that changes session and clears its environment as well is found only when nothing else
runs on the node: ``process`` isolates nothing, and says so.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Container, Iterable, Mapping

from towline.agent.supervision import kernel
from towline.runtime.port import Plan

_NAMES = ("TOW_JOB", "TOW_TASK", "TOW_INDEX", "TOW_ATTEMPT", "TOW_OUT")
Mark = tuple[str | None, ...]
_UNMARKED: Mark = (None,) * len(_NAMES)


def mark(env: Mapping[str, str]) -> Mark | None:
    """What sets the processes of one attempt apart from all others; None where nothing does."""
    found = tuple(env.get(name) for name in _NAMES)
    return None if found == _UNMARKED else found


def marked(wanted: Mark) -> list[int]:
    """All processes of this machine that have this mark."""
    return [pid for pid in kernel.processes() if mark(kernel.environment(pid)) == wanted]


def kill_all(plan: Plan, keep: int = 0) -> None:
    """Kill what has the plan's mark, but for the process ``keep``."""
    wanted = mark(plan.env)
    if wanted is None or plan.runtime != "process":
        return
    for pid in marked(wanted):
        if pid != keep:
            _kill(pid, wanted)


def unknown_children(known: Container[int]) -> list[int]:
    """Our children that we did not spawn: what descended from attempts and lost its parent."""
    return [pid for pid in kernel.children() if pid not in known]


def kill_orphans(unknown: Iterable[int], live: Collection[Mark], idle: bool) -> None:
    """Kill those of our unknown children that no living attempt owns. ``idle``: no attempt is alive, so
    that even those without a mark have no owner."""
    for pid in unknown:
        found = mark(kernel.environment(pid))
        if idle or (found is not None and found not in live):
            os.kill(pid, signal.SIGKILL)  # our child, and we reap in this thread: it is that process still


def kill_unclaimed(node_dir: str, live: Collection[Mark]) -> None:
    """Kill what attempts of this node left behind that its journal does not know as running."""
    for pid in kernel.processes():
        env = kernel.environment(pid)
        if env.get("TOW_OUT", "").startswith(f"{node_dir}/"):
            found = mark(env)
            if found is not None and found not in live:
                _kill(pid, found)


def _kill(pid: int, wanted: Mark) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if mark(kernel.environment(pid)) == wanted:  # the pidfd is held: it is that process still
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:
        return
    finally:
        os.close(pidfd)
