"""What a replay is given: submissions in the order of their times, and how each attempt will end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from towline.core.commands import AttemptKey, Cancel, SetQueue
from towline.core.placement.shape import Shape, shape_of
from towline.model.job import Array, JobSpec


class Submission(NamedTuple):
    """``job``: a unique id. ``owner``: whose it is, for the fairness between users; ``namespace`` is what
    the pool counts usage by."""

    at_ms: int
    job: str
    spec: JobSpec
    owner: str
    namespace: str = "default"


class Ending(NamedTuple):
    """How an attempt ends: ``length_ms`` after it got its place, from which it has held it."""

    length_ms: int
    exit_code: int | None = 0
    reason: str = "exited"


class Workload(NamedTuple):
    """``cancels``: (when, what), in order. ``queues`` are there from the beginning. ``left_out``: records
    of the trace that are no part of it; ``guessed``: elements whose length the trace does not tell."""

    submissions: Sequence[Submission]
    ending: Callable[[AttemptKey], Ending]
    cancels: Sequence[tuple[int, Cancel]] = ()
    queues: Sequence[SetQueue] = ()
    left_out: int = 0
    guessed: int = 0

    @property
    def elements(self) -> int:
        return sum(_size(task.array) for one in self.submissions for task in one.spec.tasks.values())

    def shapes(self) -> Counter[Shape]:
        """How many elements of each shape will come."""
        found: Counter[Shape] = Counter()
        for one in self.submissions:
            for task in one.spec.tasks.values():
                found[shape_of(task)] += _size(task.array)
        return found


def _size(array: Array | None) -> int:
    return 1 if array is None else array.size
