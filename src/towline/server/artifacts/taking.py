"""How many blobs a server takes at a time: each is in memory until it is on the disk, and the others wait in
the network.

A node has a few of the places at most, and slow ones together half of them: what has not come after a while
is slow, and where half of the places are taken by such already, it is sent away. Those that were slow before
it come to their end, so that every node gets on, and the other half is for those that are quick.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from towline.errors import Unavailable

AT_ONCE = 16
OF_A_NODE = 3
SLOW_AFTER_S = 5.0
SLOW_AT_ONCE = AT_ONCE // 2


class Taking:
    """The places of one server."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(AT_ONCE)
        self._nodes: dict[str | None, asyncio.Semaphore] = {}
        self._slow = 0

    @asynccontextmanager
    async def place(self, node: str | None) -> AsyncGenerator[None, None]:
        """Hold one of them, once it is free."""
        own = self._nodes.setdefault(node, asyncio.Semaphore(OF_A_NODE))
        async with own, self._all:
            yield

    @asynccontextmanager
    async def arriving(self) -> AsyncGenerator[None, None]:
        """Around what waits for the network, in a place. Raises Unavailable where it is slow, and enough
        others are."""
        limit = asyncio.timeout(None)
        loop = asyncio.get_running_loop()
        counted = False

        def late() -> None:
            nonlocal counted
            if self._slow >= SLOW_AT_ONCE:
                limit.reschedule(loop.time())
            else:
                self._slow += 1
                counted = True

        timer = loop.call_later(SLOW_AFTER_S, late)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise Unavailable(
                f"It has not come in {SLOW_AFTER_S:.0f} s, and {SLOW_AT_ONCE} others are as slow: "
                "bring it again."
            ) from None
        finally:
            timer.cancel()
            self._slow -= counted
