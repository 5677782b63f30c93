"""Output of attempts: read from their nodes piece by piece, both streams merged by time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

from towline.wire.messages import LogChunk

CHUNK_BYTES = 256 * 1024
TAIL_FIRST_BYTES = 64 * 1024
TAIL_MAX_BYTES = 8 * 1024**2
POLL_FIRST_S = 0.05
POLL_MAX_S = 0.5
"""How often a stream that may grow is asked again: often after something came, then less."""


class Piece(NamedTuple):
    """Bytes of one stream that were written at one time (unix ms; None: unknown)."""

    stream: str
    at: int | None
    offset: int
    data: bytes


Read = Callable[[str, int, int], Awaitable[LogChunk]]
"""(stream, offset, limit) to a chunk; a negative offset counts from the end."""


class OutputError(Exception):
    """The node cannot read the output; the text says why."""


def pieces_of(stream: str, chunk: LogChunk, before: int | None) -> list[Piece]:
    """A chunk cut where its index gives another time. ``before``: the time of what came before it."""
    marks = [(offset - chunk.offset, at) for offset, at in chunk.index]
    cuts: list[tuple[int, int | None]] = [
        (max(0, offset), at) for offset, at in marks if offset < len(chunk.data)
    ]
    if not cuts or cuts[0][0] > 0:
        cuts.insert(0, (0, before))
    ends = [offset for offset, _ in cuts[1:]] + [len(chunk.data)]
    return [
        Piece(stream, at, chunk.offset + begin, chunk.data[begin:end])
        for (begin, at), end in zip(cuts, ends, strict=True)
        if end > begin
    ]


class StreamReader:
    """One stream of one attempt, read ahead by a chunk."""

    def __init__(self, stream: str, read: Read) -> None:
        self.stream = stream
        self.pieces: deque[Piece] = deque()
        self.complete = False
        """Nothing will follow what was read."""
        self._read = read
        self._offset = 0
        self._at: int | None = None

    async def fill(self) -> None:
        """Read on unless something is there already. Raises OutputError."""
        if self.pieces or self.complete:
            return
        self._take(await self._chunk(self._offset, CHUNK_BYTES))

    async def tail(self, lines: int) -> None:
        """Read so much from the end that it holds ``lines`` lines, if there are so many."""
        want = TAIL_FIRST_BYTES
        while True:
            chunks = await self._last(want)
            ends = sum(chunk.data.count(b"\n") for chunk in chunks)
            if chunks[0].offset == 0 or ends > lines or want >= TAIL_MAX_BYTES:
                for chunk in chunks:
                    self._take(chunk)
                return
            want *= 4

    async def _last(self, want: int) -> list[LogChunk]:
        """The last ``want`` bytes, in at least one chunk: a node gives less at once than it is asked for."""
        chunks = [await self._chunk(-want, want)]
        left = want - len(chunks[0].data)
        while left > 0 and chunks[-1].data and not chunks[-1].end:
            chunks.append(await self._chunk(chunks[-1].offset + len(chunks[-1].data), left))
            left -= len(chunks[-1].data)
        return chunks

    async def _chunk(self, offset: int, limit: int) -> LogChunk:
        chunk = await self._read(self.stream, offset, limit)
        if chunk.error is not None:
            raise OutputError(chunk.error)
        return chunk

    def _take(self, chunk: LogChunk) -> None:
        pieces = pieces_of(self.stream, chunk, self._at)
        self.pieces.extend(pieces)
        if pieces:
            self._at = pieces[-1].at
        self._offset = chunk.offset + len(chunk.data)
        self.complete = chunk.end


class Merger:
    """Both streams of an attempt as one sequence of pieces, in order of time as far as it is known."""

    def __init__(self, streams: list[str], read: Read) -> None:
        self._readers = [StreamReader(stream, read) for stream in streams]

    @property
    def complete(self) -> bool:
        return all(reader.complete and not reader.pieces for reader in self._readers)

    async def start(self, tail_lines: int | None) -> list[Piece]:
        """The first pieces, of which a tail is cut to its lines. Raises OutputError."""
        if tail_lines is None:
            return await self.more()
        for reader in self._readers:
            await reader.tail(tail_lines)
        return last_lines(self._merged(), tail_lines)

    async def more(self) -> list[Piece]:
        """What there is by now; empty when nothing is new. Raises OutputError."""
        for reader in self._readers:
            await reader.fill()
        return self._merged(whole=False)

    def _merged(self, *, whole: bool = True) -> list[Piece]:
        """Take pieces in order of time, until one stream would have to be read first."""
        merged: list[Piece] = []
        while True:
            filled = [reader for reader in self._readers if reader.pieces]
            if not filled:
                return merged
            first = min(filled, key=lambda reader: reader.pieces[0].at or 0)
            merged.append(first.pieces.popleft())
            if not whole and not first.pieces and not first.complete and len(filled) > 1:
                return merged


def last_lines(pieces: list[Piece], lines: int) -> list[Piece]:
    """The end of ``pieces`` that holds ``lines`` lines; a last line without an end counts."""
    kept: list[Piece] = []
    left = lines
    open_line = True
    for piece in reversed(pieces):
        if left <= 0 and not open_line:
            break
        data, at = piece.data, len(piece.data)
        if open_line and lines > 0:
            open_line = False
            at = at - 1 if data.endswith(b"\n") else at
        while left > 0:
            at = data.rfind(b"\n", 0, at)
            if at < 0:
                break
            left -= 1
        if left == 0:
            kept.append(piece._replace(offset=piece.offset + at + 1, data=data[at + 1 :]))
            break
        kept.append(piece)
    return [piece for piece in reversed(kept) if piece.data]


def newer(pieces: list[Piece], since_ms: int | None) -> list[Piece]:
    """Those that were written at or after a time, and those whose time is not known."""
    if since_ms is None:
        return pieces
    return [piece for piece in pieces if piece.at is None or piece.at >= since_ms]


async def follow(merger: Merger, first: list[Piece], *, forever: bool) -> AsyncIterator[list[Piece]]:
    """``first`` and all that follows; without ``forever`` only what is there by now."""
    pieces, wait_s = first, POLL_FIRST_S
    while True:
        if pieces:
            yield pieces
            wait_s = POLL_FIRST_S
        elif merger.complete or not forever:
            return
        else:
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, POLL_MAX_S)
        pieces = await merger.more()
