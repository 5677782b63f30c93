"""What elements have kept under TOW_OUT, through the server: what there is, and the content of files."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

from towline.client.api import Client
from towline.errors import Damaged, OperatorError, Unavailable
from towline.model.views import ArtifactPage, ArtifactView
from towline.wire.artifacts import FAILURE

_LENGTH = struct.Struct(">I")
_DIGEST_BYTES = 32
_MAX_PIECE_BYTES = 16 * 1024**2


class Artifacts:
    """Those of one element; of one of its attempts that did not succeed where ``attempt`` is given."""

    def __init__(self, client: Client, job: str, task: str, index: int, attempt: int | None = None) -> None:
        self._client = client
        self._attempt = attempt
        self._path = f"/v1/jobs/{quote(job, safe='')}/tasks/{quote(task, safe='')}/elements/{index}/artifacts"

    async def list(self) -> AsyncGenerator[ArtifactView, None]:
        """In order of their paths, folders before what is in them. Raises NotFound, Conflict where the
        element has not ended or did not succeed."""
        cursor: str | None = None
        while True:
            page = await self._client.get(ArtifactPage, self._path, cursor=cursor, attempt=self._attempt)
            for artifact in page.artifacts:
                yield artifact
            cursor = page.next_cursor
            if cursor is None:
                return

    async def read(self, path: str, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """The content of a file from ``offset`` on, piece by piece, each checked against the digest that the
        node has made of it. Raises Unavailable where it breaks off, OperatorError for a wrong digest, Damaged
        for one that was kept and has another content now."""
        query: dict[str, Any] = {"file": path, "offset": offset, "attempt": self._attempt}
        async with (
            self._client.stream(f"{self._path}/content", method="GET", **query) as chunks,
            aclosing(_Pieces(chunks).read()) as pieces,
        ):
            async for piece in pieces:
                yield piece


class _Pieces:
    """Cuts a stream of bytes into its pieces."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._held = bytearray()

    async def read(self) -> AsyncGenerator[bytes, None]:
        while True:
            length = await self._length()
            if length == FAILURE:
                raise Damaged((await self._piece(await self._length())).decode(errors="replace"))
            data = await self._piece(length)
            if not data:
                return
            yield data

    async def _length(self) -> int:
        (length,) = _LENGTH.unpack(await self._take(_LENGTH.size))
        return int(length)

    async def _piece(self, length: int) -> bytes:
        if length > _MAX_PIECE_BYTES:
            raise OperatorError("What the server sent is no artifact.")
        digest = await self._take(_DIGEST_BYTES)
        data = await self._take(length)
        if length and hashlib.sha256(data).digest() != digest:
            raise OperatorError("An artifact was damaged on its way: fetch it again.")
        return data

    async def _take(self, count: int) -> bytes:
        while len(self._held) < count:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                raise Unavailable(
                    "The artifact broke off: its node or the server has gone, or the file has changed."
                )
            self._held += chunk
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken
