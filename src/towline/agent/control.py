"""What the agent and the supervisor of one node say to each other, over the supervisor's Unix socket.

Frames are a 4-byte big-endian length and a msgpack array of messages; both sides put several
messages into one frame. One agent is connected at a time: a new connection replaces the old one,
and begins with the supervisor's Snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from towline.core.commands import AttemptUpdate
from towline.runtime.port import Plan


class Run(Struct, frozen=True, kw_only=True, tag="run"):
    """Start these attempts. One that the journal knows already is not started again."""

    plans: tuple[Plan, ...]


class StopAttempt(Struct, frozen=True, kw_only=True, tag="stop"):
    """SIGTERM, then after ``grace_ms`` SIGKILL to all of it (0: at once); it ends with ``reason``
    unless it had ended before. Unknown attempts are ignored; a second stop may shorten the grace."""

    attempt: str
    reason: str
    grace_ms: int


class Forget(Struct, frozen=True, kw_only=True, tag="forget"):
    """The server has these endings on record: they leave the journal."""

    attempts: tuple[str, ...]


class Retire(Struct, frozen=True, kw_only=True, tag="retire"):
    """End supervisor and keeper, if no attempt is unfinished; else it is ignored. They end by closing
    the connection; endings that the server has not heard of stay in the journal for the next ones."""


class Describe(Struct, frozen=True, kw_only=True, tag="describe"):
    """Ask whether an attempt runs, and with what plan. Answered by Described."""

    request: int
    attempt: str


class Snapshot(Struct, frozen=True, kw_only=True, tag="snapshot"):
    """All attempts in the journal as they stand. ``instance`` is the journal's random name."""

    instance: str
    known: tuple[AttemptUpdate, ...]


class Changed(Struct, frozen=True, kw_only=True, tag="changed"):
    """What has happened since: running, finished and lost, in order. A ``finished`` is sent after
    the attempt's output is complete in its files and its exit is in the journal. An attempt that
    ends within 100 ms of its start has no ``running`` of its own (``finished`` carries started_at)."""

    updates: tuple[AttemptUpdate, ...]


class Described(Struct, frozen=True, kw_only=True, tag="described"):
    """``pid`` is the attempt's first process, which runs; ``plan`` is None where it does not."""

    request: int
    plan: Plan | None = None
    pid: int = 0


ToSupervisor = Run | StopAttempt | Forget | Retire | Describe
FromSupervisor = Snapshot | Changed | Described

_encoder = msgspec.msgpack.Encoder()
_to_supervisor = msgspec.msgpack.Decoder(list[ToSupervisor])
_from_supervisor = msgspec.msgpack.Decoder(list[FromSupervisor])


def encode(messages: Iterable[ToSupervisor | FromSupervisor]) -> bytes:
    """One frame, its length in front."""
    body = _encoder.encode(list(messages))
    return len(body).to_bytes(4, "big") + body


def decode_to_supervisor(body: bytes) -> list[ToSupervisor]:
    return _to_supervisor.decode(body)


def decode_from_supervisor(body: bytes) -> list[FromSupervisor]:
    return _from_supervisor.decode(body)
