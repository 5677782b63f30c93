"""The leadership lease of a pool: who may try to lead it.

The lease alone makes nobody a leader. Whoever holds it raises the term in the pool's row of the
store first and loads afterwards; every commit is fenced by that term. So a lease that was lost
without notice (a frozen process, a clock) costs work, never truth.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from msgspec import Struct


class Holder(Struct, kw_only=True):
    """Who holds a file's lock, for people (``tow doctor``): ``id`` is random and made anew by every
    process, ``alive`` says whether that process still runs (None where nobody here can tell)."""

    id: str
    pid: int
    alive: bool | None


class Lease(Protocol):
    """One pool's lease, as the leader in this process sees it."""

    @property
    def held(self) -> bool:
        """Whether it is certain, now, that nobody else has it. To be asked each time anew."""
        ...

    async def acquire(self) -> None:
        """Wait until the lease is ours. May be cancelled; it may be ours then all the same."""
        ...

    async def leaving(self) -> None:
        """Wait until the leader is to step down: the lease is lost (``held`` says so), or is to be handed
        over to another server, which ``give_up`` then does."""
        ...

    async def give_up(self) -> None:
        """Let others have it; nothing happens where it is not held. Does not fail: what cannot be told to
        others they find out by the lease's end."""
        ...


class ForLife:
    """The lease of a server that has its store to itself: what keeps other servers away is the lock of its
    home, which the kernel frees when this process ends."""

    held = True

    async def acquire(self) -> None:
        return

    async def leaving(self) -> None:
        await asyncio.Event().wait()

    async def give_up(self) -> None:
        return
