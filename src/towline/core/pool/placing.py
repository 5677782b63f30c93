"""The scheduling pass: what is queued goes to nodes, in order, as long as it fits.

1. Retries whose backoff has ended join their tasks.
2. Shapes that fitted nowhere are looked at again if a node has more to give since.
3. The queue with the lowest share (``scheduling/turns.py``) among those with candidates is next, and
   of its tasks the first in its order.
4. Quotas of the queue and of all above it, and the limit of the task's key, say how many elements
   may start. A resource of which the first in line finds too little left under a maximum is kept for
   it: nobody below that queue takes of it in this pass.
5. Where no node has room, the shape is closed and smaller shapes behind go on; the first of its
   queue that finds none gets a reservation (``scheduling/reserving.py``), and what is behind it in
   the order starts only where it does not delay that.
6. Nodes with room, the best first; as many elements as the order between queues gives in a row.

Where gangs, preemption and topology come in: a gang asks in step 6 for several places at once,
preemption between 5 and its reservation, topology where step 6 orders nodes.
"""

from __future__ import annotations

from heapq import heappop

from towline.core.entries import Task
from towline.core.pool.scheduling.assigning import assign
from towline.core.pool.scheduling.candidates import Candidates
from towline.core.pool.scheduling.reserving import Reserving, Room
from towline.core.pool.state import PoolState
from towline.model.states import ElementState

QUEUED = ElementState.QUEUED.value


def release_due(pool: PoolState) -> None:
    """Step 1: retries whose backoff has ended may be placed again."""
    timers = pool.timers
    while timers and timers[0][0] <= pool.now_ms:
        _, job_id, position, index, number = heappop(timers)
        job = pool.jobs.get(job_id)
        if job is None:
            continue
        task = job.tasks[position]
        element = task.placed.get(index)
        if element is None or element.number != number or element.state != QUEUED:
            continue
        element.not_before = None
        pool.element_changed(element)
        pool.queue_again(task, index)


def place(pool: PoolState) -> None:
    """Steps 2 to 6, until nothing that is queued may start."""
    pool.reopen()
    reserving = Reserving(pool)
    candidates = Candidates(pool)
    while (found := candidates.next()) is not None:
        task, most = found
        rooms = pool.columns.room(task.shape, most, task.spread)
        if not rooms:
            candidates.close(task.shape)
            reserving.note(task)
            continue
        allowed = reserving.narrow(task, rooms, most) if pool.blocked else rooms
        if allowed:
            _place(pool, candidates, reserving, task, most, allowed)
            candidates.taken(task)
        else:
            candidates.pass_over(task)
    candidates.end()
    reserving.end()


def _place(
    pool: PoolState, candidates: Candidates, reserving: Reserving, task: Task, most: int, rooms: Room
) -> None:
    """Step 6: up to ``most`` elements go where there is room."""
    record = candidates.record(task, len(rooms), reserving.ahead(task) if pool.blocked else None)
    for column, count in rooms:
        placed = assign(pool, task, pool.node_at(column), min(count, most), record)
        reserving.started(task, column, placed)
        most -= placed
        if most == 0 or not task.placeable:
            break
