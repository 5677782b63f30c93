"""A webhook that is owed for a job's end, as a row; the part of the store's port for them.

The end is an event, committed with the job's rows. What is owed for it is added later together with how
far the events were looked through, in one transaction: a crash in between finds the event again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct


class DeliveryRow(Struct, frozen=True, kw_only=True):
    """``number`` is the event's, ``position`` the webhook's in the job's ``notify``. Times are unix ms."""

    pool: str
    number: int
    position: int
    job: str
    outcome: str
    """What the job ended as."""
    state: str = "pending"
    """``pending``, ``delivered`` or ``failed``."""
    attempts: int = 0
    next_at: int
    """When it is tried next; of one that is over, when it ended."""
    message: str | None = None
    """What went wrong at the latest attempt."""


class DeliveryStore(Protocol):
    """The part of ``Store`` that keeps them."""

    async def delivery_cursor(self, pool: str) -> int | None:
        """The number of the last event that was looked at; None: nothing was yet."""
        ...

    async def delivery_add(self, pool: str, through: int, rows: Sequence[DeliveryRow]) -> None:
        """Add rows, unless they are there, and note that events were looked at through this number."""
        ...

    async def delivery_put(self, row: DeliveryRow) -> None:
        """What has become of one; nothing where it is gone."""
        ...

    async def delivery_due(self, pool: str, now_ms: int, limit: int) -> list[DeliveryRow]:
        """Pending ones whose time has come, the longest due first."""
        ...

    async def delivery_of(self, job: str) -> list[DeliveryRow]:
        """A job's, in order of event and position."""
        ...

    async def delivery_expire(self, before_ms: int) -> int:
        """Delete those that were over before; returns how many."""
        ...
