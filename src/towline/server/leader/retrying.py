"""Has the leader run parts of a job again, each time with what the store says of the job at that moment.

A job that has ended is not in the pool's memory, so its record is read first; where the pool has gone on
since, it refuses the record, and a new one is read.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import cast

import msgspec

from towline.core.commands import Retry
from towline.core.rows import JobRow
from towline.errors import NotFound, Outdated, Unavailable
from towline.server.leader.loop import Leader
from towline.store.port import Store

TRIES = 12
PAUSE_FIRST_S = 0.02
PAUSE_MAX_S = 1.0
MARGIN_S = 3600.0
"""So long before its history is deleted no job runs again."""

Named = tuple[tuple[str, int | None], ...]


class Retrier:
    """For one pool, whose jobs are kept for ``retention_s`` after their end."""

    def __init__(self, store: Store, leader: Leader, pool: str, retention_s: float) -> None:
        self._store = store
        self._leader = leader
        self._pool = pool
        self._kept_s = retention_s - min(MARGIN_S, retention_s / 10)

    async def retry(self, row: JobRow, named: Named, failed_only: bool, key: str | None) -> tuple[str, ...]:
        """What runs again, by name. Raises NotFound, Conflict, Unavailable."""
        wanted = msgspec.json.encode([row.id, named, failed_only])
        digest = hashlib.sha256(b"retry " + wanted).hexdigest()
        pause_s = PAUSE_FIRST_S
        for _ in range(TRIES):
            record = await self._store.record(self._pool, row.id, row.namespace, key)
            if record is None:
                raise NotFound(f"There is no job {row.id!r} any more.")
            self._check_age(record.job)
            command = Retry(
                job=row.id, record=record, named=named, failed_only=failed_only, key=key, digest=digest
            )
            try:
                return cast("tuple[str, ...]", await self._leader.ask(command))
            except Outdated:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)
        raise Unavailable(f"Job {row.id} changes too quickly at the moment: repeat the request.")

    def _check_age(self, row: JobRow) -> None:
        if row.ended_at is not None and row.ended_at / 1000 < time.time() - self._kept_s:
            raise NotFound(
                f"Job {row.name} ({row.id}) ended so long ago that its history is about to be deleted: "
                "submit it again."
            )
