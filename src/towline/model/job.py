"""What a user writes: a job, its tasks and their settings.

Quantities are integers with their unit last in the name (``cpu_milli``, ``memory_bytes``,
``timeout_ms``). The name and notation of the job file (``cpu: 0.5``, ``memory: 64Mi``,
``timeout: 2m``) hang on the field as a ``Quantity`` (see ``units.py``); ``document.py`` reads
them and ``to_document`` writes them back.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from towline.model.units import BYTES, CPU, DURATION

MAX_ELEMENTS = 10_000_000
MAX_TASKS = 10_000

CpuMilli = Annotated[int, CPU]
ByteCount = Annotated[int, BYTES]
Milliseconds = Annotated[int, DURATION]
NamedByteCount = Annotated[int, BYTES._replace(suffix="")]
"""A size whose unit is part of its name in a job file too."""

RuntimeName = Literal["oci", "docker", "process"]
Protection = Literal["userns", "seccomp", "memory", "cpu", "pids", "disk", "network", "rootfs"]
"""What a runtime may protect the node, and other attempts, with."""
Operator = Literal["=", "!=", "in", "not in", "exists", "absent", "<", "<=", ">", ">="]
Param = str | int | float | bool


class Gpu(Struct, frozen=True, kw_only=True):
    """GPUs of one element: ``count`` whole devices, or ``milli`` thousandths of one (then ``count`` is 1).

    ``model``: the accepted ones, any where empty. ``memory_bytes``: the least of a device as a whole.
    ``slice``: not devices, but MIG slices of this profile, such as ``1g.5gb``.
    """

    count: int = 1
    milli: int = 1000
    model: tuple[str, ...] = ()
    memory_bytes: ByteCount | None = None
    slice: str | None = None


class Resources(Struct, frozen=True, kw_only=True):
    """What one element needs of a node while it runs. ``disk_bytes``: what it may write, None: no limit."""

    cpu_milli: CpuMilli = 1000
    memory_bytes: ByteCount = 512 * 1024**2
    pids: int = 256
    disk_bytes: ByteCount | None = None
    gpu: Gpu | None = None


class Mount(Struct, frozen=True, kw_only=True):
    """A folder of the node shown inside the container."""

    source: str
    target: str
    readonly: bool = False


class Backoff(Struct, frozen=True, kw_only=True):
    """How long a retry waits: ``first · factor**n``, at most ``max``, give or take ``jitter`` of itself."""

    first_ms: Milliseconds = 1_000
    factor: float = 2.0
    max_ms: Milliseconds = 60_000
    jitter: float = 0.1


class Retries(Struct, frozen=True, kw_only=True):
    """``limit`` more tries after a failure with a reason in ``on``; ``lost`` more after lost attempts."""

    limit: int = 0
    lost: int = 3
    backoff: Backoff = Backoff()
    on: tuple[str, ...] | None = None


class Need(Struct, frozen=True, kw_only=True):
    """A task that must have succeeded first; with ``each``, element i after its element i."""

    task: str
    each: bool = False


class Condition(Struct, frozen=True, kw_only=True):
    """What has to be true of a node. ``key``: a label, ``node``, ``runtime``, ``gpu.model``, ``gpu.memory``.

    ``values``: one, several with ``in`` and ``not in``, none with ``exists`` and ``absent``. Where the
    label is missing, ``!=``, ``not in`` and ``absent`` are true and all others false; ``<`` to ``>=``
    compare numbers, and are false where the label's value is none.
    """

    key: str
    op: Operator = "="
    values: tuple[str, ...] = ()


class Preference(Struct, frozen=True, kw_only=True):
    """A condition that is better met than not, and how much that counts beside the others."""

    key: str
    op: Operator = "="
    values: tuple[str, ...] = ()
    weight: int = 1

    @property
    def condition(self) -> Condition:
        return Condition(key=self.key, op=self.op, values=self.values)


class Limit(Struct, frozen=True, kw_only=True):
    """At most ``max`` elements with this key, of whatever jobs, are active at once."""

    key: str
    max: int


class Array(Struct, frozen=True, kw_only=True):
    """The indexes ``first`` to ``last`` (both included), with a value each where ``values`` is given."""

    first: int = 0
    last: int = 0
    values: tuple[str, ...] | None = None

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def value(self, index: int) -> str | None:
        return None if self.values is None else self.values[index - self.first]


class Logs(Struct, frozen=True, kw_only=True):
    """Bytes of output kept for each stream of an attempt; what is over is dropped and counted."""

    max_bytes: NamedByteCount = 64 * 1024**2


class TaskSpec(Struct, frozen=True, kw_only=True):
    """One named step of a job.

    ``user`` is ``UID``, ``UID:GID`` or a name of the image. ``capabilities`` are Linux's, without
    ``CAP_``. ``secrets``: the name of a file below ``TOW_SECRETS`` to that of a stored secret.
    ``spread`` is a label (or ``node``, ``site``) over whose values the elements are spread; ``tolerate``
    names taints as ``key`` or ``key=value``. ``expect_ms`` is how long an attempt probably takes.
    """

    image: str | None = None
    runtime: RuntimeName = "oci"
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    env: dict[str, str] = {}
    workdir: str | None = None
    resources: Resources = Resources()
    mounts: tuple[Mount, ...] = ()
    inputs: dict[str, str] = {}
    network: Literal["none", "host"] = "none"
    needs: tuple[Need, ...] = ()
    array: Array | None = None
    timeout_ms: Milliseconds | None = None
    grace_ms: Milliseconds = 10_000
    retries: Retries = Retries()
    on_disconnect: Literal["keep", "stop", "wait"] = "keep"
    logs: Logs = Logs()
    user: str | None = None
    capabilities: tuple[str, ...] = ()
    privileged: bool = False
    require: tuple[Protection, ...] = ()
    secrets: dict[str, str] = {}
    where: tuple[Condition, ...] = ()
    prefer: tuple[Preference, ...] = ()
    spread: str | None = None
    tolerate: tuple[str, ...] = ()
    limit: Limit | None = None
    expect_ms: Milliseconds | None = None


class Notice(Struct, frozen=True, kw_only=True):
    """A webhook that hears of the job's end, signed with a stored secret."""

    webhook: str
    secret: str
    on: tuple[Literal["succeeded", "failed", "cancelled", "quarantined"], ...] = (
        "succeeded",
        "failed",
        "cancelled",
        "quarantined",
    )


class JobSpec(Struct, frozen=True, kw_only=True):
    """One submission: named tasks with parameters and labels.

    ``tasks`` keeps the file's order; a task's place in it is its position (0-based) everywhere below.
    ``pool``: the pools of which one gets it; ``("any",)`` whichever of all suits, ``()`` the cluster's first.
    """

    name: str
    tasks: dict[str, TaskSpec]
    params: dict[str, Param] = {}
    labels: dict[str, str] = {}
    priority: int = 50
    queue: str = "default"
    notify: tuple[Notice, ...] = ()
    pool: tuple[str, ...] = ()
