"""States and reasons: the stable words that programs read, and the sentences that people read.

The legal transitions stand in ``core/lifecycle.py``; here are only the words.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    QUARANTINED = "quarantined"


class ElementState(StrEnum):
    """A task has the state of its most advanced unended elements, or the worst end among them."""

    WAITING = "waiting"
    QUEUED = "queued"
    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def ended(self) -> bool:
        return self in ENDED


ENDED = (ElementState.SUCCEEDED, ElementState.FAILED, ElementState.CANCELLED, ElementState.SKIPPED)


class AttemptState(StrEnum):
    ASSIGNED = "assigned"
    PREPARING = "preparing"
    RUNNING = "running"
    FINISHED = "finished"
    LOST = "lost"


ATTEMPT_ENDED = (AttemptState.FINISHED, AttemptState.LOST)


class Reason(StrEnum):
    """Why an attempt, an element or a job ended as it did."""

    EXITED = "exited"
    OOM_KILLED = "oom_killed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    IMAGE_NOT_FOUND = "image_not_found"
    IMAGE_AUTH = "image_auth"
    IMAGE_PULL_TIMEOUT = "image_pull_timeout"
    IMAGE_CORRUPT = "image_corrupt"
    START_FAILED = "start_failed"
    DISK_FULL = "disk_full"
    ARTIFACTS_FAILED = "artifacts_failed"
    NODE_LOST = "node_lost"
    LEASE_EXPIRED = "lease_expired"
    SUPERVISION_LOST = "supervision_lost"
    SUPERSEDED = "superseded"
    # Reasons of elements and jobs that no attempt has:
    NEED_FAILED = "need_failed"
    TASK_FAILED = "task_failed"
    INTERNAL_ERROR = "internal_error"


LOST_REASONS = (Reason.NODE_LOST, Reason.LEASE_EXPIRED, Reason.SUPERVISION_LOST)
"""Reasons of ``lost`` attempts; every other reason of an attempt belongs to ``finished``."""

RETRYABLE = (
    Reason.EXITED,
    Reason.OOM_KILLED,
    Reason.TIMED_OUT,
    Reason.IMAGE_NOT_FOUND,
    Reason.IMAGE_AUTH,
    Reason.IMAGE_PULL_TIMEOUT,
    Reason.IMAGE_CORRUPT,
    Reason.START_FAILED,
    Reason.DISK_FULL,
    Reason.ARTIFACTS_FAILED,
)
"""What ``retries.on`` may name, and what it means when it is silent."""

SENTENCES: dict[Reason, str] = {
    Reason.EXITED: "The command ended by itself; its exit code says how.",
    Reason.OOM_KILLED: "The kernel killed it because it used more than its memory: raise resources.memory.",
    Reason.TIMED_OUT: "It ran longer than its timeout and was stopped: raise timeout, or shrink the work.",
    Reason.CANCELLED: "It was cancelled.",
    Reason.PREEMPTED: "It was stopped to make room, or since its node is drained, and is queued again.",
    Reason.IMAGE_NOT_FOUND: "There is no such image: check the name and tag in image.",
    Reason.IMAGE_AUTH: "The registry refused the credentials: log in with `tow registry login`.",
    Reason.IMAGE_PULL_TIMEOUT: "The image was not pulled in time: check the registry and the network.",
    Reason.IMAGE_CORRUPT: "The image's content does not match its digests: build or copy it again.",
    Reason.START_FAILED: "The container could not be started: the message says what failed.",
    Reason.DISK_FULL: "There was no space left on the disk that it wrote to.",
    Reason.ARTIFACTS_FAILED: "What it wrote or was to be given could not be moved between node and server.",
    Reason.NODE_LOST: "Its node went silent, so nobody knows how it ended.",
    Reason.LEASE_EXPIRED: "Its node was cut off and stopped it, as on_disconnect: stop asks.",
    Reason.SUPERVISION_LOST: "The processes that watched it died together, so nobody knows how it ended.",
    Reason.SUPERSEDED: "A newer attempt of the same element had taken its place, so this one was stopped.",
    Reason.NEED_FAILED: "A task that it needs did not succeed.",
    Reason.TASK_FAILED: "At least one of its tasks did not succeed.",
    Reason.INTERNAL_ERROR: "Towline met an error of its own with this job and set it aside; what runs stays.",
}
