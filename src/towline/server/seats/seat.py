"""What one server has for one pool: a leader, which leads while the lease is here, and what goes with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from towline.errors import StoreError
from towline.server.events import Feed
from towline.server.gateway import Gateway
from towline.server.intake import Intake
from towline.server.leader import InHand, Leader
from towline.server.logs.retention import JOBS_A_TURN, Retention
from towline.server.settings import Settings

if TYPE_CHECKING:
    from towline.server.peers.following import Following

EXPIRE_EVERY_S = 3600.0
STILL_LEADING_S = 0.5


@dataclass(frozen=True)
class Seat:
    """``settings`` are the server's, with this pool's name. ``deliver`` sends webhooks, until cancelled."""

    settings: Settings
    leader: Leader
    gateway: Gateway
    feed: Feed
    intake: Intake
    retention: Retention
    in_hand: InHand
    deliver: Callable[[], Coroutine[Any, Any, None]]
    following: Following | None = None
    """Where other servers share the store: keeps up with the pool's leader."""

    @property
    def pool(self) -> str:
        return self.settings.pool

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What goes on beside the leader, each until cancelled."""
        every = [while_leading(self.leader, self.deliver), self._expire()]
        return every if self.following is None else [*every, self.following.run()]

    async def _expire(self) -> None:
        """Delete what is older than the retention, in small steps."""
        log = structlog.get_logger("server")
        while True:
            deleted = 0
            await self.leader.ready.wait()
            try:
                deleted = (await self.retention.expire()).jobs
            except (StoreError, OSError) as error:  # the leader has the same trouble, and says so
                log.warning("nothing was expired", pool=self.pool, reason=str(error))
            await asyncio.sleep(1.0 if deleted == JOBS_A_TURN else EXPIRE_EVERY_S)


async def while_leading(leader: Leader, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Work that is the leader's alone, begun anew with each leadership."""
    while True:
        await leader.ready.wait()
        task = asyncio.create_task(work())
        try:
            while leader.ready.is_set() and not task.done():
                await asyncio.wait([task], timeout=STILL_LEADING_S)
        finally:
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
