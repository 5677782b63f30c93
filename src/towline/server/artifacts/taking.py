"""How many blobs a server takes at a time: each is in memory until it is on the disk, and the others wait in
the network. A node has a few of the places at most, so that slow ones leave some to the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

AT_ONCE = 16
OF_A_NODE = 3


class Taking:
    """The places of one server."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(AT_ONCE)
        self._nodes: dict[str | None, asyncio.Semaphore] = {}

    @asynccontextmanager
    async def place(self, node: str | None) -> AsyncGenerator[None, None]:
        """Hold one of them, once it is free."""
        own = self._nodes.setdefault(node, asyncio.Semaphore(OF_A_NODE))
        async with own, self._all:
            yield
