"""Output of one attempt, from the server's own segments as far as it was shipped, else from its node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from towline.core.rows import AttemptRow
from towline.errors import Unavailable
from towline.logs.archive import Archive
from towline.logs.entries import STREAMS
from towline.model.states import ATTEMPT_ENDED, AttemptState
from towline.model.units import rfc3339
from towline.wire.messages import LogChunk

NodeRead = Callable[[str, str, str, int, int], Awaitable[LogChunk]]
"""(node, attempt, stream, offset, limit) to what the node says; raises Unavailable without a link to it."""


class Output:
    """``read`` is what ``server.output`` reads by. ``now`` gives the attempt's row as it stands, ``name`` the
    node's name. ``follow``: a node that is away is waited for, as long as the attempt has not ended."""

    def __init__(
        self,
        attempt: str,
        node: str,
        archive: Archive | None,
        ask: NodeRead,
        now: Callable[[], Awaitable[AttemptRow | None]],
        name: Callable[[], Awaitable[str]],
        *,
        follow: bool,
    ) -> None:
        self._attempt = attempt
        self._node = node
        self._archive = archive
        self._ask = ask
        self._now = now
        self._name = name
        self._follow = follow
        self._away = False
        self._empty = True

    async def read(self, stream: str, offset: int, limit: int) -> LogChunk:
        """Raises Unavailable where the node alone has it and is not connected: on one machine."""
        chunk = await self._read(stream, offset, limit)
        self._empty = self._empty and not chunk.data
        return chunk

    async def _read(self, stream: str, offset: int, limit: int) -> LogChunk:
        if self._archive is None:
            return await self._ask(self._node, self._attempt, stream, offset, limit)
        try:
            return await self._from_both(self._archive, stream, offset, limit)
        except OSError as error:
            return LogChunk(request=0, offset=0, data=b"", index=(), end=True, error=str(error))

    async def _from_both(self, archive: Archive, stream: str, offset: int, limit: int) -> LogChunk:
        shipped = await self._shipped(archive, stream, offset, limit)
        if shipped is not None:
            return shipped
        try:
            chunk = await self._ask(self._node, self._attempt, stream, offset, limit)
        except Unavailable:
            return await self._without_node(archive, stream, offset, limit)
        if chunk.end and not chunk.data:  # perhaps the last of it has been shipped and removed meanwhile
            return await self._shipped(archive, stream, offset, limit) or chunk
        return chunk

    async def _shipped(self, archive: Archive, stream: str, offset: int, limit: int) -> LogChunk | None:
        """None where only the node can know."""
        extent = await asyncio.to_thread(archive.extent, self._attempt)
        of = STREAMS.index(stream)
        size, ended = extent.sizes[of], extent.ended[of]
        if ended or 0 <= offset < size:
            return await self._stored(archive, stream, offset, limit, size, ended)
        return None

    async def _without_node(self, archive: Archive, stream: str, offset: int, limit: int) -> LogChunk:
        """As much as there is. It is all that there will be, unless the node is waited for."""
        extent = await asyncio.to_thread(archive.extent, self._attempt)
        row = await self._now() if self._follow else None
        over = row is None or row.state in ATTEMPT_ENDED
        self._away = over
        return await self._stored(archive, stream, offset, limit, extent.sizes[STREAMS.index(stream)], over)

    async def _stored(
        self, archive: Archive, stream: str, offset: int, limit: int, size: int, ended: bool
    ) -> LogChunk:
        begin = max(0, size + offset) if offset < 0 else offset
        of = STREAMS.index(stream)
        begin, data, index = await asyncio.to_thread(archive.read, self._attempt, of, begin, limit)
        end = ended and (not data or begin + len(data) >= size)
        return LogChunk(request=0, offset=begin, data=data, index=index, end=end)

    # --- what people have to be told ----------------------------------------------------------------
    async def notes(self) -> list[str]:
        """What is missing of what was read, once that is over."""
        if self._empty and (row := await self._now()) is not None and _never_started(row):
            return [f"It never started on node {await self._name()}: {row.message or row.reason}"]
        if self._archive is None:
            return []
        notes: list[str] = []
        if await asyncio.to_thread(self._archive.was_removed, self._attempt):
            notes.append("Some of this output was removed from the server to make room for newer.")
        if self._away:
            notes.append(await self._gone(self._archive))
        return notes

    async def _gone(self, archive: Archive) -> str:
        row, name = await self._now(), await self._name()
        is_lost = row is not None and row.state == AttemptState.LOST
        what = f"Node {name} is {'gone' if is_lost else 'not connected'}"
        sizes = (await asyncio.to_thread(archive.extent, self._attempt)).sizes
        if not any(sizes):
            return f"{what}: nothing that this attempt may have printed had reached the server."
        told: list[str] = []
        for stream, size in enumerate(sizes):
            if size:
                at_ms = await asyncio.to_thread(archive.last_at, self._attempt, stream)
                when = "" if at_ms is None else f" (until {rfc3339(at_ms)})"
                told.append(f"{size} bytes of {STREAMS[stream]}{when}")
        return f"{what}: {' and '.join(told)} had reached the server, and what came after is not shown."


def _never_started(row: AttemptRow) -> bool:
    return row.state == AttemptState.FINISHED and row.started_at is None
