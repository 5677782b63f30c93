"""Which images a node is getting for attempts that wait for them, and how far: told while it does, and
kept by nobody."""

from __future__ import annotations

from msgspec import Struct


class Pull(Struct, frozen=True, array_like=True):
    """``step`` is asking (the registry), pulling or unpacking; ``total_bytes`` None where it is not known
    (yet); ``age_ms`` since it began; ``tasks`` the tasks of jobs whose attempts wait for it."""

    image: str
    step: str
    arrived_bytes: int
    total_bytes: int | None
    age_ms: int
    tasks: tuple[tuple[str, int], ...]


class Pulls(Struct, frozen=True, kw_only=True, tag="pulls"):
    """All of them, in the place of those told before; empty when the last one has ended."""

    pulls: tuple[Pull, ...] = ()
