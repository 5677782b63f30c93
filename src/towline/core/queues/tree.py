"""The tree of a pool's queues: what each holds now, what it may still take, and who is next.

The order between queues is hierarchical weighted DRF (Ghodsi et al., NSDI 2011; Bhattacharya et al.,
"Hierarchical Scheduling for Diverse Datacenter Workloads", SoCC 2013): at every level the child with
the lowest dominant share over its weight is next. A queue below its guarantee goes before all that
are above theirs. All in integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from towline.core.queues.amounts import NAMES, SCALE, Amounts, dominant, from_row
from towline.core.rows import QueueRow

DEFAULT = "default"
GUARANTEED, SHARING = 0, 1
"""Tiers of a rank: what is below its guarantee goes first."""

Rank = tuple[int, int, int]
"""(tier, share over weight in ``SCALE`` (or the part of the guarantee that it holds), the queue's seq)."""

BOUNDLESS = 1 << 62
PREFERRED = 1 << 30
"""Above every seq."""


@dataclass(slots=True, eq=False)
class Queue:
    """A queue with what it and all below it hold. ``path`` goes from itself up to a queue of the top."""

    row: QueueRow
    parent: Queue | None
    seq: int
    """Breaks ties: its place in the order of names."""
    children: list[Queue] = field(default_factory=list["Queue"])
    path: tuple[Queue, ...] = ()
    guaranteed: dict[int, int] = field(default_factory=dict[int, int])
    maximum: dict[int, int] = field(default_factory=dict[int, int])
    max_active: int | None = None
    held: list[int] = field(default_factory=lambda: [0] * len(NAMES))
    active: int = 0
    blocked: int = 0
    """How many tasks of it and below wait for a reservation: of equal shares, theirs goes first."""
    jobs: int = 0
    """Unfinished jobs that name it (not those of queues below)."""

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def max_priority(self) -> int:
        """The highest priority that counts here."""
        return min(queue.row.max_priority for queue in self.path)

    def take_over(self, row: QueueRow) -> None:
        """Take over a row, after it changed."""
        self.row = row
        self.guaranteed, self.maximum = from_row(row.guaranteed), from_row(row.maximum)
        self.max_active = row.max_active

    def hold(self, asked: Amounts, count: int) -> None:
        """``count`` elements (below zero: fewer) become active in this queue, which has no children."""
        cpu, memory, gpu, pids = asked
        for queue in self.path:
            held = queue.held
            held[0] += cpu * count
            held[1] += memory * count
            held[2] += gpu * count
            held[3] += pids * count
            queue.active += count

    def room(self, asked: Amounts) -> int:
        """How many elements more this queue itself allows, whatever those above it do."""
        most = BOUNDLESS
        if self.max_active is not None:
            most = self.max_active - self.active
        for at, maximum in self.maximum.items():
            if asked[at]:
                most = min(most, (maximum - self.held[at]) // asked[at])
        return max(0, most)

    def lacks(self, asked: Amounts) -> list[int]:
        """The resources of which this queue's maximum has no room for one more element."""
        return [
            at for at, maximum in self.maximum.items() if asked[at] > maximum - self.held[at] and asked[at]
        ]

    def never(self, asked: Amounts) -> int | None:
        """A resource of which one element asks for more than the queue's whole maximum."""
        return next((at for at, maximum in self.maximum.items() if asked[at] > maximum), None)

    def rank(self, capacity: list[int], asked: Amounts, more: int) -> Rank:
        """Its place among its siblings once ``more`` elements have been added to what it holds."""
        held = self.held
        if more:
            held = [held[at] + more * asked[at] for at in range(len(held))]
        guaranteed = self.guaranteed
        if guaranteed and all(held[at] < amount for at, amount in guaranteed.items()):
            part = max(held[at] * SCALE // amount for at, amount in guaranteed.items())
            return GUARANTEED, part, self.seq - PREFERRED * (self.blocked > 0)
        share, _ = dominant(held, capacity)
        first = self.seq - PREFERRED * (self.blocked > 0)
        return SHARING, share * 1000 // self.row.weight_milli, first

    def share(self, capacity: list[int]) -> int:
        """Its dominant share of the pool, in ``SCALE``."""
        return dominant(self.held, capacity)[0]


class QueueTree:
    """All queues of a pool, by name. ``default`` is always there."""

    def __init__(self, rows: Iterable[QueueRow] = ()) -> None:
        self.queues: dict[str, Queue] = {}
        self.top: list[Queue] = []
        self.rebuild([*rows])

    def rebuild(self, rows: list[QueueRow]) -> None:
        """Take these as the rows of all queues; objects, and what they hold, stay those of their names.

        Whoever moves a queue has what is held summed up again by ``derive``.
        """
        if all(row.name != DEFAULT for row in rows):
            rows = [*rows, QueueRow(name=DEFAULT, parent=None)]
        ordered = sorted(rows, key=lambda row: row.name)
        before, self.queues = self.queues, {}
        for seq, row in enumerate(ordered):
            queue = before.get(row.name) or Queue(row=row, parent=None, seq=seq)
            queue.seq, queue.children = seq, []
            queue.take_over(row)
            self.queues[row.name] = queue
        for queue in self.queues.values():
            queue.parent = None if queue.row.parent is None else self.queues[queue.row.parent]
            if queue.parent is not None:
                queue.parent.children.append(queue)
        self.top = [queue for queue in self.queues.values() if queue.parent is None]
        for queue in self.queues.values():
            queue.path = tuple(_upwards(queue))

    def derive(self) -> None:
        """Sum up again what queues with children hold, from what those without hold."""
        for queue in self.queues.values():
            if queue.children:
                queue.held, queue.active = [0] * len(NAMES), 0
        for queue in self.queues.values():
            if not queue.children:
                for above in queue.path[1:]:
                    above.active += queue.active
                    above.held = [a + b for a, b in zip(above.held, queue.held, strict=True)]

    def siblings(self, queue: Queue) -> list[Queue]:
        """The queue itself and all others of its parent."""
        return self.top if queue.parent is None else queue.parent.children

    def below(self, queue: Queue) -> Iterator[Queue]:
        """The queues without children in its part of the tree (itself, where it has none)."""
        if not queue.children:
            yield queue
        for child in queue.children:
            yield from self.below(child)


def _upwards(queue: Queue | None) -> Iterator[Queue]:
    while queue is not None:
        yield queue
        queue = queue.parent
