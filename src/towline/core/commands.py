"""What a pool is told, and what it says back.

Commands carry everything that the core must not make itself: ids, times and seeds. Orders are
sent to nodes only after the commit of the batch that made them; they are derived from committed
rows, so a leader that takes over makes the same ones again.
"""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from towline.core.rows import JobRecord, NodeRow
from towline.model.job import JobSpec

AttemptKey = tuple[str, int, int, int]
"""(job id, task position, element index, attempt number)."""


def attempt_id(key: AttemptKey) -> str:
    """The attempt's id: unique for ever, since job ids are; letters, digits and hyphens only."""
    job, task, index, number = key
    return f"{job}-{task}-{index}-{number}"


def attempt_key(attempt: str) -> AttemptKey:
    """The reverse of ``attempt_id``. Raises ValueError."""
    job, task, index, number = attempt.rsplit("-", 3)
    return job, int(task), int(index), int(number)


class Submit(Struct, frozen=True, kw_only=True):
    """Answered with None. ``job`` is a new id, reserved with the idempotency key before."""

    job: str
    namespace: str
    spec: JobSpec
    base_dir: str | None = None


class Cancel(Struct, frozen=True, kw_only=True):
    """Wishes that a job, one task of it or one element ends. ``kill`` leaves out the grace period.

    Answered with None; a job that has ended already is left as it is. Raises NotFound.
    """

    job: str
    task: str | None = None
    index: int | None = None
    kill: bool = False


class Retry(Struct, frozen=True, kw_only=True):
    """Runs again what of a job did not succeed, whether the job has ended or not.

    ``named``: (task, index; None: all of the task); empty: the whole job. What was cancelled runs again
    too unless ``failed_only``; what was skipped, as soon as nothing that it needs stays without success.
    ``record`` is what the store says of the job. With ``key``, a repetition changes nothing.

    Answered with what runs again, such as ``count.3-7``; empty where nothing had failed, or it runs again
    already. Raises Outdated where the record is older than what the pool knows: to be repeated with a new
    one; NotFound, and Conflict where what is named cannot run again.
    """

    job: str
    record: JobRecord
    named: tuple[tuple[str, int | None], ...] = ()
    failed_only: bool = False
    key: str | None = None
    digest: str = ""


class AttemptUpdate(Struct, frozen=True, kw_only=True):
    """What a node says of one attempt; ``state`` is preparing, running, finished or lost."""

    attempt: str
    state: str
    reason: str | None = None
    message: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    peak_memory_bytes: int | None = None
    cpu_ms: int | None = None
    image_digest: str | None = None


class NodeUp(Struct, frozen=True, kw_only=True):
    """A node has opened its link. ``known`` are all attempts in its journal that it has not yet been
    told to forget, as they stand now. Under an unchanged ``node.instance``, an attempt that the pool
    has on the node and the node does not know was never received: it is ordered again. Under another
    instance it is lost. Raises Outdated where the node has said something else since."""

    node: NodeRow
    known: tuple[AttemptUpdate, ...] = ()


class NodeDown(Struct, frozen=True, kw_only=True):
    """A node's link has closed; it is lost only after a silence."""

    node: str


class Maintain(Struct, frozen=True, kw_only=True):
    """The only server is about to stop: connected nodes may have a node lease of ``lease_ms`` once this is
    committed. Answered with their ids."""

    lease_ms: int


class LeaseShortened(Struct, frozen=True, kw_only=True):
    """All on the node hold the usual lease again."""

    node: str


class Report(Struct, frozen=True, kw_only=True):
    """Updates from a node. Answered with the attempts that the node may forget (all that ended,
    those of no interest included), to be told after the commit."""

    node: str
    updates: tuple[AttemptUpdate, ...]


class Drain(Struct, frozen=True, kw_only=True):
    """A node takes nothing new. What runs there ends by itself or, ``deadline_ms`` from now, is stopped and
    queued again, which costs it no retry. Said again it sets another deadline. Raises NotFound."""

    node: str
    deadline_ms: int | None = None


class Undrain(Struct, frozen=True, kw_only=True):
    """A node takes work again. What was told to stop stops. Raises NotFound."""

    node: str


class ForgetNode(Struct, frozen=True, kw_only=True):
    """A node will not come back: what it had is lost, whatever the tasks' ``on_disconnect``. Raises
    NotFound, and RequestError for a node that is there."""

    node: str


class Tick(Struct, frozen=True, kw_only=True):
    """Time has passed: backoffs that ended, nodes that stayed silent."""


class Quarantine(Struct, frozen=True, kw_only=True):
    """A job that the pool cannot carry on: it becomes visible as such, nothing of it starts any more.

    ``submit`` is given where the job's own submission was what failed, so that there is no job yet."""

    job: str
    message: str
    submit: Submit | None = None


class SetQueue(Struct, frozen=True, kw_only=True):
    """Makes a queue, or changes what is given of one; None takes an amount away. Answered with None.

    ``only``: ``new`` or ``existing``, where it must not, or must, be there before.

    Raises RequestError (Conflict, NotFound) that names the field, value and remedy."""

    name: str
    only: Literal["new", "existing"] | None = None
    parent: str | UnsetType | None = UNSET
    weight_milli: int | UnsetType = UNSET
    guaranteed: dict[str, int | None] | UnsetType = UNSET
    maximum: dict[str, int | None] | UnsetType = UNSET
    max_priority: int | UnsetType = UNSET
    max_active: int | UnsetType | None = UNSET


class DeleteQueue(Struct, frozen=True, kw_only=True):
    """Answered with None. Raises NotFound, and RequestError for a queue with jobs or queues below it."""

    name: str


class SetPriority(Struct, frozen=True, kw_only=True):
    """Another priority for what of a job is still to be placed. Answered with None.

    Raises NotFound, and RequestError for a priority above what the job's queue allows."""

    job: str
    priority: int


Command = (
    Submit
    | Cancel
    | Retry
    | NodeUp
    | NodeDown
    | Maintain
    | LeaseShortened
    | Report
    | Drain
    | Undrain
    | ForgetNode
    | Tick
    | Quarantine
    | SetQueue
    | DeleteQueue
    | SetPriority
)


class StartOrder(Struct, frozen=True, kw_only=True):
    """Start this attempt on this node, with these GPUs (as in AttemptRow)."""

    node: str
    job: str
    task: int
    index: int
    number: int
    devices: str | None = None


class StopOrder(Struct, frozen=True, kw_only=True):
    """Stop this attempt: SIGTERM, after ``grace_ms`` SIGKILL (0: at once)."""

    node: str
    attempt: str
    reason: str
    grace_ms: int


Order = StartOrder | StopOrder
