"""What a pool remembers in the store, row by row, and the changes of one commit.

Rows are the whole truth of a pool: ``Pool.load`` of what was committed gives the pool again.
Times are milliseconds since 1970 (UTC); ``task`` is a task's position in its job.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from towline.model.job import JobSpec


class JobRow(Struct, kw_only=True):
    """A job. ``seq`` is its place in the order of submission to its pool; over all pools, jobs are in order
    of ``seq`` and then ``id``."""

    id: str
    seq: int
    namespace: str
    name: str
    state: str
    reason: str | None
    message: str | None
    priority: int
    cancel_requested: bool
    submitted_at: int
    ended_at: int | None
    queue: str = "default"
    pool: str = "default"


class SpecRow(Struct, kw_only=True):
    """What does not change of a job: written once, with its first JobRow."""

    job: str
    spec: JobSpec
    base_dir: str | None


class TaskRow(Struct, kw_only=True):
    """A task: one row, however many elements it has.

    ``next`` is the first index that has not left the array (``last + 1`` when all have; it goes back
    where elements run again that had ended unplaced); with ``each`` it stays at ``first`` and what has
    left is what has rows or ranges. ``ready`` says that
    every plain need succeeded. The counts add up to the array's size. ``image_digest`` is what the
    task's image was first resolved to: all its elements run that one.
    """

    job: str
    task: int
    name: str
    first: int
    last: int
    next: int
    ready: bool
    waiting: int
    queued: int
    active: int
    succeeded: int
    failed: int
    cancelled: int
    skipped: int
    image_digest: str | None = None


class ElementRow(Struct, kw_only=True):
    """An element that has been placed at least once, or stands again before such. ``number`` is its
    newest attempt's, 0 where it has none.

    ``failures`` counts against ``retries.limit``, ``losses`` against ``retries.lost``;
    ``not_before`` holds back a queued retry until its backoff is over.
    """

    job: str
    task: int
    index: int
    state: str
    number: int
    failures: int
    losses: int
    not_before: int | None
    reason: str | None
    message: str | None
    exit_code: int | None


def unplaced_element(job: str, task: int, index: int, state: str) -> ElementRow:
    """The row of an element that was never placed."""
    return ElementRow(
        job=job,
        task=task,
        index=index,
        state=state,
        number=0,
        failures=0,
        losses=0,
        not_before=None,
        reason=None,
        message=None,
        exit_code=None,
    )


class RangeRow(Struct, kw_only=True):
    """Elements ``lo`` to ``hi`` (both included) that ended without ever being placed."""

    job: str
    task: int
    lo: int
    hi: int
    state: str
    reason: str | None
    message: str | None


class AttemptRow(Struct, kw_only=True):
    """One try of one element on one node. ``stop`` is the reason of a wish to stop it, if there is one.

    ``devices`` are the GPUs that it holds: ``0,3`` whole ones, ``2:500`` thousandths of one.
    ``placed`` says in a few words why it was placed where and when it was.
    """

    job: str
    task: int
    index: int
    number: int
    node: str
    state: str
    stop: str | None
    reason: str | None
    message: str | None
    exit_code: int | None
    signal: int | None
    assigned_at: int
    started_at: int | None
    finished_at: int | None
    peak_memory_bytes: int | None
    cpu_ms: int | None
    image_digest: str | None
    devices: str | None = None
    placed: str | None = None


class GpuDevice(Struct, frozen=True, kw_only=True):
    """A GPU of a node, or one MIG slice of it (``slice`` is its profile, such as ``1g.5gb``)."""

    id: str
    model: str
    memory_bytes: int
    slice: str | None = None


class NodeRow(Struct, kw_only=True):
    """A node: capacity in milli-CPUs, bytes and pids. ``instance`` names its journal: a node that
    comes back with another one has forgotten what it ran. ``taints`` (``key`` or ``key=value``) keep
    away every task that does not tolerate them."""

    id: str
    name: str
    instance: str
    state: str
    cpu_milli: int
    memory_bytes: int
    pids: int
    labels: dict[str, str]
    runtimes: dict[str, str | None]
    """Each runtime that the node knows, with why it cannot run here (null: it can)."""
    gpus: tuple[GpuDevice, ...] = ()
    taints: tuple[str, ...] = ()
    protects: dict[str, tuple[str, ...]] = {}
    """What each runtime protects here: userns, seccomp, disk, …"""
    disk_bytes: int = 0
    """Space for what attempts write; 0: not limited."""
    drain_at: int | None = None
    """Since when, in unix ms, it takes nothing new; None: it does."""
    drain_until: int | None = None
    """When what still runs there is stopped and queued again; None: it may end by itself."""
    lease_ms: int = 0
    """How long its node lease may last beyond the usual, as a server that stopped has said; 0: not."""
    boot_id: str = ""
    said_ms: int = 0
    """When it said this, in CLOCK_BOOTTIME of that boot; 0: it does not tell."""


class QueueRow(Struct, kw_only=True):
    """A queue of the pool: a share by ``weight_milli`` (1000 is a weight of one) below its parent.

    ``guaranteed`` and ``maximum`` are amounts by resource: ``cpu`` and ``gpu`` in thousandths,
    ``memory`` in bytes, ``pids``. ``max_active`` bounds how many elements are active at once.
    """

    name: str
    parent: str | None
    weight_milli: int = 1000
    guaranteed: dict[str, int] = {}
    maximum: dict[str, int] = {}
    max_priority: int = 100
    max_active: int | None = None


class UsageRow(Struct, kw_only=True):
    """What a namespace has used of the pool: dominant share times milliseconds (share in millionths),
    halved with every half-life that has passed since; ``at`` is when this was true."""

    namespace: str
    usage: int
    at: int


class DurationRow(Struct, kw_only=True):
    """How long past attempts of a task of this name took, in a job of this name and namespace."""

    namespace: str
    name: str
    task: str
    data: dict[str, int]


class EventRow(Struct, kw_only=True):
    """A fact. ``number`` has no gaps in its stream; ``data`` holds what the kind's docs promise."""

    number: int
    at: int
    kind: str
    job: str | None
    data: dict[str, Any]


class PoolSnapshot(Struct, kw_only=True):
    """What a leader loads at takeover: the counters, and all that is unfinished.

    ``elements`` and ``ranges`` are those of unfinished jobs; ``ended`` gives, for each of their
    tasks, the placed elements that have ended, as ranges ``(job, task, state, lo, hi)``;
    ``elements`` holds only those that have not. ``attempts`` are the unfinished ones and the
    newest of elements that are queued again. ``set_aside`` are jobs that are left out of all of it,
    since other rows of theirs do not decode.
    """

    pool: str
    term: int
    commit_no: int
    event_no: int
    job_seq: int
    jobs: list[JobRow] = []
    set_aside: list[JobRow] = []
    specs: list[SpecRow] = []
    tasks: list[TaskRow] = []
    elements: list[ElementRow] = []
    ended: list[tuple[str, int, str, int, int]] = []
    ranges: list[RangeRow] = []
    attempts: list[AttemptRow] = []
    nodes: list[NodeRow] = []
    queues: list[QueueRow] = []
    usages: list[UsageRow] = []
    durations: list[DurationRow] = []


class JobRecord(Struct, kw_only=True):
    """A job as the store has it, read in one transaction with the pool's ``term`` and ``event_no``: what
    has to be known to run parts of it again, after it has ended or while it runs.

    ``ended`` as in PoolSnapshot; ``elements`` are the placed ones that failed or were cancelled, in order of
    their key. ``taken`` is the digest of the request that the idempotency key which was asked for stands
    for, None where it stands for none.
    """

    term: int
    event_no: int
    job: JobRow
    spec: SpecRow
    tasks: list[TaskRow]
    ended: list[tuple[str, int, str, int, int]]
    ranges: list[RangeRow]
    elements: list[ElementRow]
    taken: str | None = None


class KeyRow(Struct, frozen=True, kw_only=True):
    """An idempotency key that has been used up by the commit that it is part of."""

    namespace: str
    key: str
    digest: str
    job: str
    created_at: int


class Changes(Struct, kw_only=True):
    """One commit: rows as they stand after it (each key at most once), and the events that tell of it.

    ``event_no`` and ``job_seq`` are the counters after it.
    """

    event_no: int
    job_seq: int
    jobs: list[JobRow]
    specs: list[SpecRow]
    tasks: list[TaskRow]
    elements: list[ElementRow]
    ranges: list[RangeRow]
    attempts: list[AttemptRow]
    nodes: list[NodeRow]
    events: list[EventRow]
    queues: list[QueueRow] = []
    queues_gone: list[str] = []
    """Names of queues that are no more."""
    usages: list[UsageRow] = []
    durations: list[DurationRow] = []
    ranges_gone: list[tuple[str, int, int]] = []
    """(job, task, lo) of ranges that are no more, or begin elsewhere; taken away before ``ranges``."""
    keys: list[KeyRow] = []

    @property
    def empty(self) -> bool:
        return not (
            self.events
            or self.jobs
            or self.tasks
            or self.elements
            or self.ranges
            or self.attempts
            or self.nodes
            or self.queues
            or self.queues_gone
            or self.usages
            or self.durations
            or self.ranges_gone
            or self.keys
        )
