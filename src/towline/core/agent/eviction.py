"""Which copies of artifacts a node lets go of, where they take more than they may."""

from __future__ import annotations

from collections.abc import Iterable, Set

from msgspec import Struct


class Copy(Struct, frozen=True, kw_only=True):
    """What an element wrote, as the server has it too. ``used_ns``: when it was last needed."""

    job: str
    task: int
    index: int
    size_bytes: int
    used_ns: int


class Pins(Struct, frozen=True):
    """What attempts of this node have as input: all of these tasks, and whatever is of these jobs."""

    tasks: Set[tuple[str, int]] = frozenset()
    jobs: Set[str] = frozenset()

    def hold(self, copy: Copy) -> bool:
        return copy.job in self.jobs or (copy.job, copy.task) in self.tasks


def to_evict(copies: Iterable[Copy], pins: Pins, most_bytes: int) -> list[Copy]:
    """The longest unused ones, until the rest takes no more than ``most_bytes``. What attempts have as
    input stays, also where that is too much: they could not run without."""
    copies = list(copies)
    left = sum(copy.size_bytes for copy in copies)
    found: list[Copy] = []
    free = (copy for copy in copies if not pins.hold(copy))
    for copy in sorted(free, key=lambda copy: (copy.used_ns, copy.job, copy.task, copy.index)):
        if left <= most_bytes:
            break
        found.append(copy)
        left -= copy.size_bytes
    return found
