"""What the agent's machine is told."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from towline.core.commands import AttemptUpdate


class LinkOpened(Struct, frozen=True):
    """A link to a server is open, and nothing was said on it yet."""


class Welcomed(Struct, frozen=True):
    """The server has answered Hello as the leader of ``term``."""

    term: int


class LinkClosed(Struct, frozen=True):
    pass


class Start(Struct, frozen=True):
    """Start an attempt of each element ``(index, number)`` of the task at this position of the job.

    ``devices``: the GPUs of each of them; empty where none has any."""

    term: int
    job: str
    task: int
    elements: Sequence[tuple[int, int]]
    devices: Sequence[str | None] = ()


class Stop(Struct, frozen=True):
    term: int
    attempt: str
    reason: str
    grace_ms: int


class Acked(Struct, frozen=True):
    term: int
    seq: int
    forget: Sequence[str]


class Prepared(Struct, frozen=True):
    """``(attempt, plan)`` of each attempt that can be run now. A plan means nothing to the machine."""

    plans: Sequence[tuple[str, object]]


class PrepareFailed(Struct, frozen=True):
    attempts: Sequence[str]
    reason: str
    message: str


class Declined(Struct, frozen=True):
    """The agent cannot even try these (it was not told of their task): as if they had not been ordered."""

    attempts: Sequence[str]


class Slow(Struct, frozen=True):
    """The preparation of these takes long enough to be told of."""

    attempts: Sequence[str]


class SupervisorUp(Struct, frozen=True):
    """Connected to the supervisor: all attempts in its journal, whose random name is ``instance``."""

    instance: str
    known: Sequence[AttemptUpdate]


class SupervisorDown(Struct, frozen=True):
    pass


class Changed(Struct, frozen=True):
    updates: Sequence[AttemptUpdate]


class Flush(Struct, frozen=True):
    """Report now what is not yet reported."""


class Tick(Struct, frozen=True):
    """Time has passed."""


Event = (
    LinkOpened | Welcomed | LinkClosed | Start | Stop | Acked | Prepared | PrepareFailed | Declined
    | Slow | SupervisorUp | SupervisorDown | Changed | Flush | Tick
)  # fmt: skip
