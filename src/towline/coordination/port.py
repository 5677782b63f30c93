"""The leadership lease of a pool: who may try to lead it.

The lease alone makes nobody a leader. Whoever holds it raises the term in the pool's row of the
store first and loads afterwards; every commit is fenced by that term. So a lease that was lost
without notice (a frozen process, a clock) costs work, never truth.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class Holder(Struct, kw_only=True):
    """Who holds a lease, for people (``tow doctor``): ``id`` is random and made anew by every
    process, ``alive`` says whether that process still runs (None where nobody here can tell)."""

    id: str
    pid: int
    alive: bool | None


class Lease(Protocol):
    """One pool's lease, seen by one process. Methods raise OperatorError where what keeps the
    lease cannot be used (no rights, no space)."""

    @property
    def id(self) -> str:
        """The random id of this would-be holder."""
        ...

    async def acquire(self) -> None:
        """Wait until the lease is ours. May be cancelled; then it is not held."""
        ...

    def try_acquire(self) -> bool:
        """True if the lease is ours now (also if it was before); never waits."""
        ...

    async def renew(self) -> None:
        """Keep the lease. To be called every ``renew_every_ms``. Raises StaleTerm once it is lost."""
        ...

    @property
    def renew_every_ms(self) -> int | None:
        """None where a lease is held for life and there is nothing to renew."""
        ...

    @property
    def held(self) -> bool:
        """Whether it is certain, now, that nobody else has it."""
        ...

    def release(self) -> None:
        """Give it up; nothing happens where it is not held."""
        ...

    def holder(self) -> Holder | None:
        """Who has it, as far as is written down. Takes nothing away from whoever tries to acquire it."""
        ...
