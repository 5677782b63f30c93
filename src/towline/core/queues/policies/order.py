"""What an order inside a queue is: a name and a key. Lower keys go first.

An order is one small file. It sees one element and the time, nothing else, and answers in integers,
so that the same queue stands alike in every process. Priority and the namespace's usage stand before
it, whatever it says; what it leaves equal goes in the order of submission.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from towline.core.expected import Expected

OrderKey = tuple[int, ...]
"""Of one order all keys are equally long."""


class Item(NamedTuple):
    """An element that waits.

    ``submitted_at``: unix milliseconds. ``limit_ms``: its timeout (with none: what is expected).
    ``expected``: what is known of its length. ``size_milli``: thousandths of a processor; where it
    takes a larger part of the pool's memory or devices than of its processors, as many as make up
    that part. At least 1. ``standing``: the part of Towline's own score that time does not change
    (``core.queues.age``). ``patient_until``: when it has waited longer than first come, first served
    would have let it.
    """

    submitted_at: int
    limit_ms: int
    expected: Expected | None
    size_milli: int
    standing: int
    patient_until: int


class Order(Protocol):
    """``learns``: its reservations and backfilling go by learnt lengths; else by timeouts, which is what
    the published policies know."""

    @property
    def name(self) -> str: ...
    @property
    def learns(self) -> bool: ...
    def key(self, now_ms: int, item: Item) -> OrderKey:
        """The place in the order; its first element that does not fit gets the reservation."""
        ...


@runtime_checkable
class OrdersBackfill(Protocol):
    """An order in which those behind the reservation stand otherwise than before it."""

    def backfill_key(self, now_ms: int, item: Item) -> OrderKey:
        """The place among those behind the reservation."""
        ...
