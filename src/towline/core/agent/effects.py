"""What the agent's machine wants done; ``towline/agent/executor.py`` does it, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from towline.core.commands import AttemptUpdate


class SendHello(Struct, frozen=True):
    instance: str
    known: tuple[AttemptUpdate, ...]


class SendReport(Struct, frozen=True):
    seq: int
    updates: tuple[AttemptUpdate, ...]


class DropLink(Struct, frozen=True):
    """Close the link and open another one; ``why`` is for the log."""

    why: str


class Prepare(Struct, frozen=True):
    """Make the plans of these attempts ``(attempt, index, number)``, all of one task.

    ``devices`` are the GPUs of those attempts that have any."""

    job: str
    task: int
    elements: Sequence[tuple[str, int, int]]
    devices: Mapping[str, str] = {}


class CancelPrepare(Struct, frozen=True):
    attempt: str


class RunPlans(Struct, frozen=True):
    plans: Sequence[object]


class StopAttempt(Struct, frozen=True):
    attempt: str
    reason: str
    grace_ms: int


class Forget(Struct, frozen=True):
    attempts: tuple[str, ...]


Effect = (
    SendHello | SendReport | DropLink | Prepare | CancelPrepare | RunPlans | StopAttempt | Forget
)  # fmt: skip
