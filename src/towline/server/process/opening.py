"""A server's store is opened, also where the database starts later than the server."""

from __future__ import annotations

import asyncio

import structlog

from towline.errors import StoreAway
from towline.store.port import Store

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 2.0
TELL_EVERY_S = 5.0


async def open_store(store: Store, wait_ms: int) -> None:
    """Open it; one that cannot be reached is tried again and again for so long. Raises StoreError."""
    loop = asyncio.get_running_loop()
    log = structlog.get_logger("server")
    begun_s, told_s, pause_s = loop.time(), -TELL_EVERY_S, FIRST_PAUSE_S
    while True:
        try:
            await store.open()
            return
        except StoreAway as away:
            waited_s = loop.time() - begun_s
            left_s = wait_ms / 1000 - waited_s
            if left_s <= 0:
                raise
            if waited_s - told_s >= TELL_EVERY_S:
                told_s = waited_s
                log.warning("the store is away, and is waited for", seconds=round(left_s), reason=str(away))
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
