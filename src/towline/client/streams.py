"""Server-sent events and NDJSON, read from a stream of byte chunks that may break anywhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from typing import NamedTuple

from msgspec import Struct

from towline.errors import OperatorError

MAX_MESSAGE_BYTES = 64 * 1024**2


class Message(NamedTuple):
    """One server-sent event: its cursor (the last one seen) and its data, lines joined."""

    id: str
    data: bytes


class LogChunk(Struct, frozen=True, kw_only=True):
    """A piece of an attempt's output. ``stream`` is stdout or stderr, ``offset`` counts bytes of that
    stream, ``at`` is unix milliseconds of its writing (None: not known). ``note``, in a chunk without data at
    the end, says what of the output is missing."""

    stream: str
    at: int | None = None
    offset: int
    data: bytes
    """base64 on the wire, which msgspec undoes."""
    note: str | None = None


async def lines(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """Lines without their ends (LF or CR LF); a last line without an end is dropped: it was cut off."""
    kept: list[bytes] = []
    size = 0
    async for chunk in chunks:
        if b"\n" not in chunk:
            kept.append(chunk)
            size += len(chunk)
            if size > MAX_MESSAGE_BYTES:
                raise OperatorError(f"The server sent a line of over {MAX_MESSAGE_BYTES} bytes.")
            continue
        first, *whole, rest = chunk.split(b"\n")
        yield (b"".join(kept) + first).removesuffix(b"\r")
        for line in whole:
            yield line.removesuffix(b"\r")
        kept, size = ([rest], len(rest)) if rest else ([], 0)


async def messages(chunks: AsyncIterable[bytes]) -> AsyncGenerator[Message, None]:
    """The events of a server-sent event stream, without comments (keep-alives) and events without data."""
    cursor = ""
    data: list[bytes] = []
    async with aclosing(lines(chunks)) as found:
        async for line in found:
            if not line:
                if data:
                    yield Message(cursor, b"\n".join(data))
                    data = []
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"id":
                cursor = value.decode()


class Resumed:
    """Drops what was seen before of streams that are read again from further back, by offset."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    @property
    def started(self) -> bool:
        return bool(self._seen)

    def fresh(self, chunk: LogChunk) -> LogChunk | None:
        """The part of the chunk that was not seen yet, or None."""
        if chunk.note is not None:
            return chunk
        seen = self._seen.get(chunk.stream, 0)
        end = chunk.offset + len(chunk.data)
        if chunk.data and end <= seen:
            return None
        self._seen[chunk.stream] = max(end, seen)
        if chunk.offset >= seen:
            return chunk
        cut = seen - chunk.offset
        return LogChunk(stream=chunk.stream, at=chunk.at, offset=seen, data=chunk.data[cut:])
