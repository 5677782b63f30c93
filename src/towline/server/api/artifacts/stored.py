"""Artifacts that the server keeps itself, for users: a page of what there is, and the content of a file."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

from towline.core.commands import AttemptKey
from towline.errors import NotFound, RequestError
from towline.server.artifacts.keeping import Keeping
from towline.wire.artifacts import PAGE_ENTRIES, PIECE_BYTES, Artifact
from towline.wire.manifest import Manifest, place_of

Piece = tuple[bytes, bytes]
"""(SHA-256 of the data, the data)."""


class Stored:
    """Those of one attempt."""

    def __init__(self, keeping: Keeping, attempt: AttemptKey, manifest: Manifest) -> None:
        self._keeping = keeping
        self._attempt = attempt
        self._manifest = manifest

    def page(self, after: bytes) -> tuple[tuple[Artifact, ...], bytes | None]:
        """Entries behind a cursor (empty: from the first on), and the next cursor. Raises RequestError."""
        if after and not after.isdigit():
            raise RequestError(f"{after.hex()!r} is no cursor of artifacts: leave it out to start anew.")
        begin = int(after[:20] or 0)
        end = begin + PAGE_ENTRIES
        following = b"%d" % end if end < len(self._manifest.entries) else None
        return self._manifest.entries[begin:end], following

    async def open(self, path: str, offset: int) -> tuple[int, AsyncIterator[Piece]]:
        """(the size of a file, its pieces from ``offset`` on, which raise Damaged). Raises NotFound, and
        Damaged where the first piece is."""
        found = place_of(self._manifest.entries, path)
        if found is None:
            raise NotFound(f"There is no file {path[:200]!r}.")
        begin, entry = found
        at, end = begin + offset, begin + entry.size_bytes
        return entry.size_bytes, self._pieces(await self._read(at, end), at, end)

    async def _pieces(self, data: bytes, at: int, end: int) -> AsyncIterator[Piece]:
        while data:
            at += len(data)
            yield hashlib.sha256(data).digest(), data
            data = await self._read(at, end)

    async def _read(self, at: int, end: int) -> bytes:
        """Some of what is left; nothing at the end."""
        if at >= end:
            return b""
        length = min(PIECE_BYTES, end - at)
        return await asyncio.to_thread(self._keeping.read, self._attempt, self._manifest, at, length)


async def find_stored(keeping: Keeping | None, attempt: AttemptKey | None) -> Stored | None:
    """None where the server has none of this attempt."""
    if keeping is None or attempt is None:
        return None
    manifest = await asyncio.to_thread(keeping.manifest, attempt)
    return None if manifest is None else Stored(keeping, attempt, manifest)
