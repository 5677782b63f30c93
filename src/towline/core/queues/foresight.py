"""What a pool expects: how long elements run, how much work there is, how long anyone should wait.

The methods stand in ``core/expected.py`` and ``queues/age.py``; here they meet the pool's tasks.
"""

from __future__ import annotations

from towline.core.backfill import NEVER_MS
from towline.core.entries import Task
from towline.core.expected import Key, Lengths
from towline.core.queues.age import Backlog, standing
from towline.core.queues.amounts import CPU, NAMES, SCALE, dominant
from towline.core.queues.policies.order import Item, Order, OrderKey, OrdersBackfill
from towline.core.rows import DurationRow

UNKNOWN_MS = 60_000
KEPT_EVERY = 16
"""A kind of attempts is written to the store with every so many of them (the first ones more often):
what a takeover forgets is little."""


class Foresight:
    """``capacity`` is the pool's own list: what nodes that are ready have in all. ``order``: the order
    inside its queues, which says what is known of a length."""

    def __init__(self, capacity: list[int], order: Order) -> None:
        self.lengths = Lengths()
        self.work = Backlog()
        self.waiting = [0] * len(NAMES)
        """What all that is queued asks for, by resource."""
        self.backfills = order if isinstance(order, OrdersBackfill) else None
        """The order of those behind a reservation, where it is another one."""
        self._order = order
        self._capacity = capacity

    # --- lengths --------------------------------------------------------------------------------------
    def look(self, task: Task) -> None:
        """Take over what has been learnt about a task since it was last looked at. Little by little
        more is known: a task is looked at again when an eighth has been added."""
        found = kinds(task)
        version = self.lengths.version(found)
        if task.known >= 0 and version <= task.known + task.known // 8:
            return
        spec = task.spec
        task.known = version
        task.expected = self.lengths.expected(found, spec.expect_ms, spec.timeout_ms)
        task.item = self._item(task)

    def _item(self, task: Task) -> Item:
        """A task as the order sees it."""
        share, resource = dominant(task.asks, self._capacity)
        cpu_milli = task.asks[CPU] if resource == CPU else share * self._capacity[CPU] // SCALE
        return Item(
            submitted_at=task.job.row.submitted_at,
            limit_ms=task.spec.timeout_ms or _mean_ms(task),
            expected=task.expected,
            size_milli=max(1, cpu_milli),
            standing=standing(task.expected, max(1, share)),
            patient_until=task.patient_until,
        )

    def ends_at(self, task: Task, now_ms: int) -> int:
        """When an element that starts now is expected to end."""
        self.look(task)
        if task.expected is None:
            return NEVER_MS
        return now_ms + (task.expected.mean_ms if self._order.learns else task.expected.longest_ms(0))

    def end_of(self, task: Task, began_at: int, now_ms: int) -> int:
        """When an attempt that runs since then is expected to end; later than now."""
        self.look(task)
        if task.expected is None:
            return NEVER_MS
        length_ms = task.expected.total_ms if self._order.learns else task.expected.longest_ms
        return max(began_at + length_ms(max(0, now_ms - began_at)), now_ms + 1)

    def learn(self, task: Task, run_ms: int) -> list[Key]:
        """An attempt has ended by itself or at its timeout; returns the kinds to be written."""
        seen = self.lengths.learn(kinds(task), run_ms)
        return [kind for kind, count in seen if count % KEPT_EVERY == 0 or count in _WRITTEN_AT]

    def row(self, kind: Key) -> DurationRow:
        namespace, name, task = (*kind, "", "", "")[:3]
        seen, counts = self.lengths.kept(kind)
        data = {"seen": seen} | {str(at): count for at, count in counts.items()}
        return DurationRow(namespace=namespace, name=name, task=task, data=data)

    def load(self, rows: list[DurationRow]) -> None:
        loaded: list[tuple[Key, int, dict[int, int]]] = []
        for row in rows:
            kind = tuple(part for part in (row.namespace, row.name, row.task) if part)
            counts = {int(at): count for at, count in row.data.items() if at != "seen"}
            loaded.append((kind, row.data["seen"], counts))
        self.lengths.load(loaded)

    # --- work and patience ------------------------------------------------------------------------------
    def arrive(self, task: Task, now_ms: int) -> None:
        """A task comes in: the size and length that it is counted with from now on, and how long it
        should wait at most, given all the work before it."""
        self.look(task)
        task.load = max(1, dominant(task.asks, self._capacity)[0])
        task.longest_ms = task.spec.timeout_ms or 2 * _mean_ms(task)
        task.patient_until = now_ms + self.work.patience_ms(now_ms, task.longest_ms, SCALE)
        assert task.item is not None
        task.item = task.item._replace(patient_until=task.patient_until)
        self.recount(task)

    def recount(self, task: Task) -> None:
        """Something of a task has changed: count anew what it has queued."""
        count = 0 if task.done or task.job.quarantined else task.placeable
        if count != task.counted:
            more = count - task.counted
            self.work.queued(task.load, task.longest_ms, more)
            for at, amount in enumerate(task.asks):
                self.waiting[at] += amount * more
            task.counted = count

    # --- the order ------------------------------------------------------------------------------------
    def place(self, task: Task, as_of_ms: int, *, behind: bool) -> OrderKey:
        """The order's part of a task's key; lower goes first. ``behind``: behind a reservation."""
        self.look(task)
        item = task.item
        assert item is not None
        if self.backfills is None:
            return self._order.key(as_of_ms, item)
        if behind:
            return 1, *self.backfills.backfill_key(as_of_ms, item)
        return 0, *self._order.key(as_of_ms, item)


_WRITTEN_AT = (1, 2, 4, 8)


def kinds(task: Task) -> tuple[Key, Key]:
    """The kinds of attempts that a task's are of, from coarse to fine."""
    row = task.job.row
    return (row.namespace,), (row.namespace, row.name, task.name)


def _mean_ms(task: Task) -> int:
    return UNKNOWN_MS if task.expected is None else task.expected.mean_ms
