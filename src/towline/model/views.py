"""What the API and ``--json`` show: field names are stable and documented in docs/guides/json.md.

Unknown values are null. Times are RFC 3339 in UTC with milliseconds.
"""

from __future__ import annotations

from msgspec import Struct

from towline.model.pulls import PullingView


class AttemptView(Struct, kw_only=True):
    id: str
    number: int
    node: str | None
    state: str
    reason: str | None
    message: str | None
    exit_code: int | None
    signal: int | None
    assigned_at: str | None
    started_at: str | None
    finished_at: str | None
    peak_memory_bytes: int | None
    cpu_seconds: float | None
    image_digest: str | None
    devices: str | None = None
    """The GPUs that it holds: ``0,3`` whole ones, ``2:500`` thousandths of one."""
    placed: str | None = None
    """Why it was placed on its node when it was."""


class ElementView(Struct, kw_only=True):
    index: int
    state: str
    reason: str | None
    message: str | None
    exit_code: int | None
    attempts: list[AttemptView]


class TaskView(Struct, kw_only=True):
    name: str
    state: str
    reason: str | None
    message: str | None
    size: int
    needs: list[str]
    counts: dict[str, int]
    elements: list[ElementView]
    next_cursor: str | None
    """Where the next page of elements starts; null when ``elements`` is all there is."""


class DeliveryView(Struct, kw_only=True):
    """What has become of a webhook. ``at``: when it is tried next, or when it was delivered or given up."""

    webhook: str
    outcome: str
    state: str
    attempts: int
    at: str
    message: str | None = None


class JobView(Struct, kw_only=True):
    id: str
    name: str
    namespace: str
    state: str
    reason: str | None
    message: str | None
    priority: int
    labels: dict[str, str]
    submitted_at: str
    ended_at: str | None
    cancel_requested: bool
    counts: dict[str, int]
    """Elements of the whole job, by state."""
    tasks: list[TaskView]
    queue: str = "default"
    pool: str = "default"
    pulls: list[PullingView] = []
    """Images that nodes are getting for it now."""
    webhooks: list[DeliveryView] = []
    """Of a job that is asked for alone."""


class RetryView(Struct, kw_only=True):
    """The answer of ``tow retry``: the job as it stands now, and what of it runs again."""

    job: JobView
    retried: list[str]
    """``TASK``, ``TASK.INDEX`` and ``TASK.FIRST-LAST``, at most 1,000 of them."""
    ranges: int
    """How many such there are; 0 where nothing had failed, or it runs again already."""
    cursor: str
    """Events after it tell of this retry and of what follows."""


class ArtifactView(Struct, kw_only=True):
    """Something below TOW_OUT. ``kind`` is file, folder or other (which is never fetched: ``why``)."""

    path: str
    kind: str
    size_bytes: int
    modified_at: str
    mode: str
    """Permissions, in octal: ``644``."""
    why: str | None = None


class ArtifactPage(Struct, kw_only=True):
    artifacts: list[ArtifactView]
    next_cursor: str | None


class WhyView(Struct, kw_only=True):
    """The answer of ``tow why``: ``summary`` is the true reason in a sentence, ``details`` support it."""

    job: str
    task: str | None
    index: int | None
    state: str
    summary: str
    details: list[str]
    place: list[str] = []
    """What is queued: its queue's share, its place in the order, and who is before it and why."""
    remedy: str | None = None
    """What would let it start."""
    expected_start: str | None = None
    """By what is expected of all that runs; RFC 3339. Null where lengths are not known."""
    expected_start_is: str | None = None
    """``reserved``: nothing behind it in the order delays that; ``estimated``: it may come otherwise."""
    placed: str | None = None
    """What was placed: why it was placed where and when it was."""
    preparing_on: str | None = None
    """The id of the node that prepares it."""
    pulls: list[PullingView] = []
    """Images that it waits for there."""


class GpuView(Struct, kw_only=True):
    """A GPU of a node, or one MIG slice of it; ``free_milli`` thousandths of it are held by nobody."""

    id: str
    model: str
    memory_bytes: int
    slice: str | None
    free_milli: int


class NodeView(Struct, kw_only=True):
    id: str
    name: str
    state: str
    cpu: float
    cpu_free: float
    memory_bytes: int
    memory_free_bytes: int
    labels: dict[str, str]
    runtimes: dict[str, str | None]
    gpus: list[GpuView] = []
    taints: list[str] = []
    """``key`` or ``key=value``: keeps away what does not tolerate it."""
    protects: dict[str, list[str]] = {}
    """What each runtime protects on this node."""
    disk_bytes: int = 0
    """Space for what attempts write; 0: not limited."""
    active: int = 0
    """Attempts that it has."""
    drain_at: str | None = None
    """Since when it takes nothing new."""
    drain_until: str | None = None
    """When what still runs there is stopped and queued again."""
    pool: str = "default"


class NodeUsageView(Struct, kw_only=True):
    """A node as a whole. ``clock_seconds`` is its own clock, which runs from its start; ``cpu`` the CPUs that
    were busy between two answers, None in a single one; ``error`` why it has not answered."""

    id: str
    name: str
    clock_seconds: float = 0.0
    cpus: int = 0
    cpu_seconds: float = 0.0
    cpu: float | None = None
    load1: float = 0.0
    memory_bytes: int = 0
    memory_used_bytes: int = 0
    elements: int = 0
    error: str | None = None


class ElementUsageView(Struct, kw_only=True):
    """The running attempt of an element. ``cpu_seconds`` since its start; ``cpu`` the CPUs that it used
    between two answers, None in a single one. What is not known is None."""

    name: str
    """``JOB/TASK.INDEX``, without the index where the task is no array."""
    job: str
    task: str
    index: int
    attempt: int
    node: str
    run_seconds: float | None
    cpu_seconds: float | None
    cpu: float | None = None
    cpu_limit: float
    memory_bytes: int | None
    peak_memory_bytes: int | None
    memory_limit_bytes: int
    pids: int | None
    output_bytes: int


class UsageView(Struct, kw_only=True):
    """``interval_seconds``: between the two answers that ``cpu`` is from."""

    nodes: list[NodeUsageView]
    elements: list[ElementUsageView]
    interval_seconds: float | None = None


class EventView(Struct, kw_only=True):
    """``cursor`` is opaque: events after it are asked for with it."""

    cursor: str
    at: str
    kind: str
    job: str | None
    data: dict[str, object]


class ServerView(Struct, kw_only=True):
    """``build`` names the exact program (version and, in a checkout, a digest of its source)."""

    build: str
    api: int
    pool: str
    term: int
    local: bool
    pid: int
    problems: list[str] = []
    """Of its own configuration: sentences with remedies."""


class PoolView(Struct, kw_only=True):
    """A pool: a set of nodes with one leader. Where no leader answers, only its name is known.

    ``leader`` is the name of the server that leads it, ``address`` where others reach that. Amounts are those
    of its ready nodes."""

    pool: str
    leader: str | None = None
    address: str | None = None
    term: int | None = None
    since: str | None = None
    nodes: int | None = None
    cpu: float | None = None
    cpu_free: float | None = None
    memory_bytes: int | None = None
    memory_free_bytes: int | None = None
    gpus: int | None = None
    jobs: int | None = None
    """Unfinished ones."""
    active: int | None = None
    queued: int | None = None


class LedPoolView(Struct, kw_only=True):
    """A pool that a server leads. ``since`` is by that server's clock."""

    pool: str
    term: int
    since: str


class PeerView(Struct, kw_only=True):
    """One server of the cluster, as the one that was asked (``asked``) sees it. ``silent_seconds``: since it
    was last seen to beat; ``live``: whether that is less than a leadership lease."""

    id: str
    name: str
    address: str
    build: str
    started_at: str
    live: bool
    silent_seconds: float
    asked: bool
    leads: list[LedPoolView] = []


class QueueView(Struct, kw_only=True):
    """A queue as it stands. ``share`` is the largest part of the pool (0 to 1) that it and all below it
    hold of one resource, which ``dominant`` names; ``fair_share`` is what its weight would give it among
    those that have work now. Amounts: ``cpu`` in CPUs, ``memory`` in bytes, ``gpu`` in devices, ``pids``."""

    name: str
    parent: str | None
    weight: float
    guaranteed: dict[str, float]
    maximum: dict[str, float]
    max_priority: int
    max_active: int | None
    share: float
    fair_share: float
    dominant: str
    held: dict[str, float]
    active: int
    """Elements of it and all below it that are active."""
    queued: int
    """Those that could start now if there were room."""
    jobs: int
    """Unfinished jobs that name it."""
    order: str = ""
    """The pool's order inside queues, behind priority and what namespaces have used."""
    usage_half_life_s: float = 0
    """What a namespace has used counts half as much after so long."""
    pool: str = "default"


class PlannedView(Struct, kw_only=True):
    """``count`` elements of a task that would go to one node now."""

    task: str
    node: str
    count: int
    indexes: list[int]
    """The first few of them."""
    devices: list[str]
    placed: str


class PlanWaitView(Struct, kw_only=True):
    """``count`` elements of a task that would wait, and why."""

    task: str
    count: int
    summary: str
    details: list[str]
    expected_start: str | None = None
    """Of what would get a reservation; RFC 3339."""


class PlanView(Struct, kw_only=True):
    """Where everything of a job would go if it were submitted now; nothing was."""

    name: str
    queue: str
    placements: list[PlannedView]
    waiting: list[PlanWaitView]
    pool: str = "default"
    """The one that would get it."""


class ImageView(Struct, kw_only=True):
    """An image on a node. ``progress``: it is being pulled, and the rest is not known yet."""

    digest: str
    names: list[str]
    """What it was asked for by, as long as the name stood for it."""
    unpacked_bytes: int
    compressed_bytes: int
    """The copies of its layers as they came from the registry: what makes the next pull quick."""
    pulled_at: str | None
    used_at: str | None
    attempts: int
    """How many attempts use it now."""
    progress: str | None = None


class ImagesFreedView(Struct, kw_only=True):
    """What was removed of a node's images, or would be."""

    removed: list[str]
    freed_bytes: int
    left_bytes: int


class GarbageView(Struct, kw_only=True):
    """What was removed, or would be: ``jobs`` that ended longer ago than they are kept, and the output that
    nodes had shipped. ``left_bytes`` is what is there of it then; ``artifact_bytes`` are those of the jobs'
    artifacts."""

    jobs: int
    freed_bytes: int
    left_bytes: int
    artifact_bytes: int = 0


class PullView(Struct, kw_only=True):
    """One line of the answer to a pull: how far it is, at last the image, or why there is none."""

    progress: str | None = None
    image: ImageView | None = None
    error: str | None = None
    reason: str | None = None


class LoginView(Struct, kw_only=True):
    """A login at a registry. Its password is never shown."""

    registry: str
    user: str | None
    updated_at: str


class SecretView(Struct, kw_only=True):
    """A stored secret. Its value is never shown; ``version`` counts how often it was set."""

    name: str
    version: int
    updated_at: str
