"""What a node's attempts use at the moment: asked for by a server, answered in one message."""

from __future__ import annotations

from msgspec import Struct


class ReadUsage(Struct, frozen=True, kw_only=True, tag="read_usage"):
    """Of all attempts that run on the node, or of one job, task or element: -1 and "" are all."""

    request: int
    job: str = ""
    task: int = -1
    index: int = -1


class AttemptUsage(Struct, frozen=True, array_like=True):
    """None: not known. ``ran_ms``: since its start. ``cpu_us`` rises from there on; ``output_bytes`` is what
    it has printed and is kept."""

    attempt: str
    ran_ms: int | None
    cpu_us: int | None
    memory_bytes: int | None
    peak_memory_bytes: int | None
    pids: int | None
    output_bytes: int


class UsageAnswer(Struct, frozen=True, kw_only=True, tag="usage"):
    """``clock_us``: CLOCK_MONOTONIC of the node when it was read, to compare with another answer's.
    ``busy_us``, ``load1`` and the memory are the whole machine's; ``error``: it could not be read."""

    request: int
    clock_us: int
    cpus: int = 0
    busy_us: int = 0
    load1: float = 0.0
    memory_bytes: int = 0
    memory_used_bytes: int = 0
    attempts: tuple[AttemptUsage, ...] = ()
    error: str | None = None
