"""What is too old, or too much: jobs that ended long ago with all of theirs, and output beyond its size."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from towline.core.commands import attempt_key
from towline.logs.archive import Archive
from towline.model.states import ATTEMPT_ENDED
from towline.server.artifacts.keeping import Keeping
from towline.server.logs.own_node import OwnNode
from towline.store.port import Store

JOBS_A_TURN = 1_000
_LISTED_JOBS = 100_000


class Garbage(NamedTuple):
    """``jobs`` that ended longer ago than they are kept, the bytes of output that go with them or have to
    make room, and those of what they wrote under TOW_OUT."""

    jobs: int
    output_bytes: int
    artifact_bytes: int = 0


class Retention:
    """``days``: for how long jobs are kept after their end; ``output_bytes``: how much output is. Output is
    in ``archive`` and artifacts are in ``keeping``, or both on one machine in the folder of its node."""

    def __init__(
        self,
        store: Store,
        archive: Archive | None,
        pool: str,
        days: float,
        output_bytes: int,
        clock_s: Callable[[], float] = time.time,
        keeping: Keeping | None = None,
        own_node: OwnNode | None = None,
    ) -> None:
        self._own_node = own_node
        self._store = store
        self._archive = archive
        self._keeping = keeping
        self._pool = pool
        self._days = days
        self._output_bytes = output_bytes
        self._clock_s = clock_s
        self._turn = asyncio.Lock()

    @property
    def _before_ms(self) -> int:
        return int((self._clock_s() - self._days * 86_400) * 1000)

    async def would(self, *, room: bool = True) -> Garbage:
        """What ``collect`` would remove now. Raises StoreError, OSError."""
        jobs = await self._store.expired(self._pool, self._before_ms, _LISTED_JOBS)
        if self._own_node is not None:
            return Garbage(len(jobs), *await asyncio.to_thread(self._own_node.size_of, jobs))
        artifacts = 0 if self._keeping is None else await asyncio.to_thread(self._keeping.size_bytes, jobs)
        if self._archive is None:
            return Garbage(len(jobs), 0, artifacts)
        sealed = self._archive.sealed()
        going = set(await asyncio.to_thread(self._archive.lost_with, jobs))
        if room:
            going.update(await self._too_much(self._archive, going))
        return Garbage(len(jobs), sum(sealed.get(segment, 0) for segment in going), artifacts)

    async def collect(self, *, room: bool = True) -> Garbage:
        """Remove all of it; with ``room`` also output until it fits, whatever pool it is of. Raises
        StoreError, OSError."""
        jobs = freed = artifacts = 0
        while (gone := await self.expire()).jobs:
            jobs, freed = jobs + gone.jobs, freed + gone.output_bytes
            artifacts += gone.artifact_bytes
        return Garbage(jobs, freed + (await self.make_room() if room else 0), artifacts)

    async def expire(self) -> Garbage:
        """A part of what is too old, in small steps; nothing where none is left. Output goes first: were the
        jobs gone before it, nobody would know of it any more. Raises StoreError, OSError."""
        async with self._turn:
            before_ms = self._before_ms
            await self._store.audit_expire(before_ms)
            await self._store.delivery_expire(before_ms)
            jobs = await self._store.expired(self._pool, before_ms, JOBS_A_TURN)
            freed = artifacts = 0
            if self._own_node is not None and jobs:
                freed, artifacts = await asyncio.to_thread(self._own_node.drop, jobs)
            if self._archive is not None and jobs:
                freed = await asyncio.to_thread(self._archive.drop_jobs, jobs)
            if self._keeping is not None and jobs:
                artifacts = await asyncio.to_thread(self._keeping.drop_jobs, jobs)
            return Garbage(await self._store.expire(self._pool, before_ms, JOBS_A_TURN), freed, artifacts)

    async def make_room(self) -> int:
        """Remove output until it fits; returns the bytes freed. Raises StoreError, OSError."""
        if self._archive is None:
            return 0
        async with self._turn:
            freed = 0
            for segment in await self._too_much(self._archive, set()):
                freed += await asyncio.to_thread(self._archive.drop_segment, segment)
            return freed

    async def _too_much(self, archive: Archive, going: set[int]) -> list[int]:
        """The oldest segments whose attempts have all ended, until the rest fits. ``going`` goes anyway."""
        sealed = {segment: size for segment, size in archive.sealed().items() if segment not in going}
        left, found = sum(sealed.values()), list[int]()
        running: dict[str, bool] = {}
        for segment, size in sealed.items():
            if left <= self._output_bytes:
                break
            names = await asyncio.to_thread(archive.attempts_in, segment)
            if all([await self._has_ended(name, running) for name in names]):
                found.append(segment)
                left -= size
        return found

    async def _has_ended(self, attempt: str, running: dict[str, bool]) -> bool:
        """``running``: of the jobs that were asked for before."""
        key = attempt_key(attempt)
        if key[0] not in running:
            found = await self._store.job(key[0])
            running[key[0]] = found is not None and found[0].ended_at is None
        if not running[key[0]]:
            return True
        row = await self._store.attempt(*key)
        return row is None or row.state in ATTEMPT_ENDED
