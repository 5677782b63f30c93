"""Keeps a node's certificate renewed, long before it ends."""

from __future__ import annotations

import asyncio
import random

import structlog

from towline.agent.cluster.membership import Membership
from towline.errors import TowlineError

LOOK_EVERY_S = 3600.0


async def keep_renewed(member: Membership, node: str, look_every_s: float = LOOK_EVERY_S) -> None:
    """Until cancelled. A renewal that fails is tried again at the next look."""
    log = structlog.get_logger("agent.renewal")
    while True:
        if member.is_due:
            try:
                await asyncio.to_thread(member.renew, node)
                log.info("the certificate is renewed")
            except (TowlineError, OSError) as error:
                log.warning("the certificate is not renewed", reason=str(error))
        await asyncio.sleep(look_every_s * random.uniform(0.5, 1))
