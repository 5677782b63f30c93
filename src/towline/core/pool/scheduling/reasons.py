"""Why a queued task is not placed: its queue's share and bounds, its key, who is before it, the nodes."""

from __future__ import annotations

from typing import NamedTuple

from towline.core.entries import Task
from towline.core.placement.filters.filter import Misfit
from towline.core.placement.filters.misfits import count_text
from towline.core.pool.scheduling.reserving import Reserving
from towline.core.pool.state import PoolState
from towline.core.queues.amounts import NAMES, NOTHING, percent, shown
from towline.core.queues.policies.order import Order
from towline.core.queues.policies.slowdown import Slowdown
from towline.core.queues.tree import GUARANTEED, Queue
from towline.core.queues.views import busy, entitled
from towline.model.units import moment

NAMED = 5


class Block(NamedTuple):
    """What keeps it from being placed, in a sentence, and what would let it."""

    summary: str
    remedy: str


def blocked(pool: PoolState, task: Task) -> Block | None:
    """A bound of a queue or of the task's key; None where only the nodes, or the order, are in the way."""
    for queue in task.job.queue.path:
        found = _by_queue(pool, task, queue)
        if found is not None:
            return found
    limit = task.limit
    if limit is not None and not limit.room:
        what = f"{limit.holders} active elements hold the key {limit.key!r}, of which {limit.most} may"
        return Block(f"it waits for its limit: {what}", "the end of one of them, or a higher limit.max")
    return None


def _by_queue(pool: PoolState, task: Task, queue: Queue) -> Block | None:
    name, asked = queue.name, task.asks
    never = queue.never(asked)
    if never is not None:
        what = f"asks for {shown(never, asked[never])}, queue {name} has at most"
        summary = f"{what} {shown(never, queue.maximum[never])}: it can never start"
        return Block(summary, f"a higher maximum: tow queue set {name} --max {NAMES[never]}=…")
    if queue.max_active is not None and queue.active >= queue.max_active:
        summary = f"queue {name} has {queue.active} active elements, its max_active"
        remedy = f"tow queue set {name} --max-active …"
        return Block(summary, f"the end of one of them, or {remedy}" if queue.active else remedy)
    lacks = queue.lacks(asked)
    if lacks:
        at = lacks[0]
        held, most = shown(at, queue.held[at]), shown(at, queue.maximum[at])
        summary = f"queue {name} is at its maximum: it holds {held} of {most}, and this asks for "
        return Block(
            summary + shown(at, asked[at]),
            f"ends in queue {name}, or tow queue set {name} --max {NAMES[at]}=…",
        )
    return None


def kept(pool: PoolState, task: Task) -> Block | None:
    """What a maximum has left is kept for somebody who is before it."""
    for queue in task.job.queue.path:
        for other in before(pool, task):
            for at in queue.lacks(other.asks) if queue in other.job.queue.path else ():
                if task.asks[at] and queue.never(other.asks) is None:
                    what = f"what queue {queue.name} has left of its {NAMES[at]} maximum"
                    return Block(f"{what} is kept for {label(other)}, which is before it", "that one's start")
    return None


def behind(pool: PoolState, task: Task) -> Block | None:
    """It fits, and would delay somebody's reservation."""
    reserving = Reserving(pool)
    other = reserving.ahead(task)
    held = None if other is None else reserving.expect(other)
    if other is None or held is None:
        return None
    node = pool.columns.entries[held[0]].row.name
    summary = f"where it fits it would delay {label(other)}, for which node {node} is reserved"
    return Block(
        f"{summary} from {moment(held[1])} on", f"that one's start, or an expect before {moment(held[1])}"
    )


def before(pool: PoolState, task: Task) -> list[Task]:
    """The tasks of its queue that are before it and have something to place."""
    line = [other for other in pool.backlog.tasks() if other.job.queue is task.job.queue]
    return [other for other in line if other.key < task.key and other.placeable]


def label(task: Task) -> str:
    return f"{task.job.row.name}/{task.name} ({task.job.row.id})"


def places(pool: PoolState, task: Task, ahead: list[Task]) -> list[str]:
    """Its place in the order: the queue's share, who is ahead and why."""
    queue = task.job.queue
    working = busy(pool.queues, pool.backlog) | set(queue.path)
    share = percent(queue.share(pool.capacity))
    fair = percent(entitled(pool.queues, queue, working))
    found = [f"queue {queue.name} holds {share} of the pool; its weight gives it {fair}"]
    found += _queues_before(pool, queue)
    place = f"place {len(ahead) + 1} in queue {queue.name}"
    found.append(
        place if not ahead else f"{place}; before it: {_named(task, ahead, pool.columns.rules.order)}"
    )
    return found


def _queues_before(pool: PoolState, queue: Queue) -> list[str]:
    """The queues whose turn comes sooner, where their ways to the top part: the lowest share over weight."""
    working = busy(pool.queues, pool.backlog)
    waiting = {level for queues in pool.backlog.shapes.values() for other in queues for level in other.path}
    found: list[str] = []
    for level in reversed(queue.path):
        mine = level.rank(pool.capacity, NOTHING, 0)
        rivals = [other for other in pool.queues.siblings(level) if other is not level and other in waiting]
        for other in sorted(rivals, key=lambda one: one.rank(pool.capacity, NOTHING, 0)):
            rank = other.rank(pool.capacity, NOTHING, 0)
            if rank < mine:
                share, fair = other.share(pool.capacity), entitled(pool.queues, other, working)
                why = (
                    "is below its guarantee"
                    if rank[0] == GUARANTEED
                    else f"its weight gives it {percent(fair)}"
                )
                found.append(f"{other.name} (holds {percent(share)}; {why})")
    if not found:
        return []
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return [f"queues before it: {', '.join(found[:NAMED])}{more}"]


def _named(task: Task, ahead: list[Task], order: Order) -> str:
    shown_ones = [f"{label(other)} ({_why_ahead(task, other, order)})" for other in ahead[:NAMED]]
    more = len(ahead) - len(shown_ones)
    return ", ".join(shown_ones) + (f" and {more} more" if more else "")


def _why_ahead(task: Task, other: Task, order: Order) -> str:
    mine, theirs = task.key, other.key
    if theirs[0] != mine[0]:
        return f"priority {-theirs[0]}, this one's is {-mine[0]}"
    if theirs[1] != mine[1]:
        return f"namespace {other.job.row.namespace} has used less lately"
    if other.job is task.job:
        return "an earlier task of the same job"
    if theirs[2:-2] == mine[2:-2]:
        return "older"
    own = order.name == Slowdown.name
    return "older, or expected to be shorter" if own else f"first in the order {order.name}"


class Room(NamedTuple):
    """What the filters say of every node, and whether one ``fits``."""

    summary: str
    details: list[str]
    fits: bool
    remedy: str | None = None


def nodes(pool: PoolState, task: Task) -> Room:
    found = pool.columns.misfits(task.shape)
    fitting = len(pool.nodes) - sum(misfit.nodes for misfit in found)
    details = [f"{count_text(misfit.nodes)}: {misfit.text}" for misfit in found]
    details += [f"{count_text(fitting)}: it fits"] if fitting else []
    if fitting:
        return Room("it fits and is about to be placed", details, True)
    if all(misfit.permanent for misfit in found):
        remedy = "a node that can take it, or a job file that asks for what there is"
        return Room(f"it can never start here: {found[0].text}", details, False, remedy)
    remedy = _room_remedy(found)
    if len(found) == 1:
        return Room(f"no node has room now: {found[0].text}", details, False, remedy)
    return Room(f"none of {len(pool.nodes)} nodes can start it now", details, False, remedy)


def _room_remedy(found: list[Misfit]) -> str:
    """What would make room on one of the nodes that it does not fit on for now."""
    passing = [misfit for misfit in found if not misfit.permanent]
    if all(misfit.kind == "open" for misfit in passing):
        return "a node that is ready and connected"
    short = [misfit for misfit in passing if misfit.kind != "open"]
    ways = dict.fromkeys(
        f"more {_MORE[misfit.kind]} free on one node" for misfit in short if misfit.kind in _MORE
    )
    if not ways:
        return f"a node of which this is not so: {short[0].text}"
    return f"ends of what runs: {' or '.join(ways)}"


_MORE = {"cpu": "CPUs", "memory": "memory", "pids": "pids", "disk": "disk", "gpu": "GPUs"}
