"""Links that are opened side by side, where one alone may hang: packets get lost, and TCP waits ever longer
before it sends one again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

MOST = 4


class Connection(Protocol):
    @property
    def transport(self) -> asyncio.Transport: ...


T = TypeVar("T", bound=Connection)


async def first_of(open_one: Callable[[], Awaitable[T | None]], apart_s: float) -> T | None:
    """Up to ``MOST`` tries, each begun ``apart_s`` after the one before while none has opened: the first that
    opens. None where all that were begun have failed."""
    tries: set[asyncio.Future[T | None]] = set()
    begun = 0
    try:
        while True:
            if begun < MOST:
                tries.add(asyncio.ensure_future(open_one()))
                begun += 1
            timeout_s = apart_s if begun < MOST else None
            done, tries = await asyncio.wait(tries, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            opened = [found for each in done if (found := each.result()) is not None]
            for more in opened[1:]:
                more.transport.abort()
            if opened or not tries:
                return opened[0] if opened else None
    finally:
        for each in tries:
            each.add_done_callback(discard)
            each.cancel()


def discard(late: asyncio.Future[T | None]) -> None:
    """It has opened in the moment in which another one was kept."""
    if not late.cancelled() and late.exception() is None and (found := late.result()) is not None:
        found.transport.abort()
