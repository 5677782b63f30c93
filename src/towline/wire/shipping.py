"""How a node of a cluster ships the output of its attempts, while they run, to where it outlives the node.

The node opens an attempt, and the server answers up to where it has each stream on its disk; from there
the node sends parts in order, and each LogAck says how much has become durable. Nothing else is kept of
how far it went: whoever of the two starts again, the next opening finds out. The node may be a window
ahead of what was acknowledged, over all its attempts.

    node                                server
    LogOpen(attempts)          ──▶
                               ◀──      LogAck(attempt, sizes, ended, window_bytes)
    LogPart(attempt, stream, offset …) ──▶
                               ◀──      LogAck …                     once it is on the disk
    LogPart(… end)             ──▶
                               ◀──      LogAck(… ended)              the node may drop its copy
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

PART_BYTES = 128 * 1024
"""The most that one part carries, so that a report never waits long behind it."""
PART_TIMES = 1024
LEAST_WINDOW_BYTES = PART_BYTES
MOST_WINDOW_BYTES = 4 * 1024**2
OPEN_ATTEMPTS = 256

Offset = Annotated[int, Meta(ge=0, lt=2**53)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Time = tuple[Offset, int, Annotated[int, Meta(ge=0, le=1)]]
"""(offset, unix ms, 1 where the bytes are Towline's own note of what it dropped)."""


class LogOpen(Struct, frozen=True, kw_only=True, tag="log_open"):
    """From an agent: asks where to go on with these attempts. Each is answered by a LogAck."""

    attempts: Annotated[tuple[Name, ...], Meta(max_length=OPEN_ATTEMPTS)]


class LogPart(Struct, frozen=True, kw_only=True, tag="log_part"):
    """From an agent: the bytes of ``stream`` (0 stdout, 1 stderr) from ``offset`` on, with when they came.
    ``end``: nothing follows in this stream."""

    attempt: Name
    stream: Annotated[int, Meta(ge=0, le=1)]
    offset: Offset
    data: Annotated[bytes, Meta(max_length=PART_BYTES)]
    times: Annotated[tuple[Time, ...], Meta(max_length=PART_TIMES)] = ()
    end: bool = False


class LogAck(Struct, frozen=True, kw_only=True, tag="log_ack"):
    """To an agent: so many bytes of each stream are durable, and whether its end is.

    ``error`` says why no more is taken of this attempt on this link: for good, or with ``retry_ms`` until
    it is opened anew after so long.
    """

    attempt: str
    sizes: tuple[int, int] = (0, 0)
    ended: tuple[bool, bool] = (False, False)
    window_bytes: int = LEAST_WINDOW_BYTES
    error: str | None = None
    retry_ms: int | None = None
