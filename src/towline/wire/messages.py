"""What an agent and a server say to each other: tagged msgpack arrays over one WebSocket.

The first message each way is Hello and Welcome (or Refused). Everything else may come in any
order. Both sides put several messages into one frame: a frame is a msgpack array of messages.
An agent repeats its Reports until an Ack names their ``seq``, also over reconnects.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from towline.core.commands import AttemptUpdate
from towline.core.rows import GpuDevice
from towline.model.job import TaskSpec
from towline.wire.artifacts import ArtifactsAnswer, ArtifactsCall
from towline.wire.exec import ExecClose, ExecOpen, ExecSaid, ExecSay
from towline.wire.pulls import Pulls
from towline.wire.shipping import LogAck, LogOpen, LogPart
from towline.wire.usage import ReadUsage, UsageAnswer
from towline.wire.versions import VERSION as VERSION


class Hello(Struct, frozen=True, kw_only=True, tag="hello"):
    """Agent's first message. ``known``: every attempt in the node's journal, as in ``core`` NodeUp.
    ``version`` is the oldest that it speaks, ``newest`` the newest (0: there is but one); see versions.py.
    ``sent_boottime_ms``: by what was said later on another link, this is out of date (0: it does not
    tell)."""

    version: int
    newest: int = 0
    build: str
    node: str
    name: str
    instance: str
    boot_id: str
    cpu_milli: int
    memory_bytes: int
    pids: int
    labels: dict[str, str]
    runtimes: dict[str, str | None]
    known: tuple[AttemptUpdate, ...] = ()
    gpus: tuple[GpuDevice, ...] = ()
    taints: tuple[str, ...] = ()
    protects: dict[str, tuple[str, ...]] = {}
    disk_bytes: int = 0
    sent_boottime_ms: int = 0


class Heartbeat(Struct, frozen=True, kw_only=True, tag="heartbeat"):
    """Every 2 s or as Welcome says. ``sent_boottime_ms`` is CLOCK_BOOTTIME before sending; it comes back in
    the answer. ``lease_term``: of whose answer the lease is that the node holds now; 0: it holds none."""

    sent_boottime_ms: int
    lease_term: int = 0


class Report(Struct, frozen=True, kw_only=True, tag="report"):
    seq: int
    updates: tuple[AttemptUpdate, ...]


class LogChunk(Struct, frozen=True, kw_only=True, tag="log"):
    """Answer to ReadLog: bytes ``offset`` and on of one stream. ``end``: the stream is complete after them.

    ``index`` gives (offset, unix ms) pairs that fall into ``data``, for timestamps.
    """

    request: int
    offset: int
    data: bytes
    index: tuple[tuple[int, int], ...]
    end: bool
    error: str | None = None


class ImageInfo(Struct, frozen=True, kw_only=True):
    """One image of a node. Times are unix ms. ``progress``: it is being pulled, the rest is not known."""

    digest: str
    names: tuple[str, ...]
    unpacked_bytes: int
    compressed_bytes: int
    pulled_at: int
    used_at: int
    attempts: int
    progress: str | None


class ImageAnswer(Struct, frozen=True, kw_only=True, tag="image_answer"):
    """``error`` is a sentence, ``kind`` then a Reason's word, not_found or refused."""

    request: int
    done: bool = True
    progress: str | None = None
    images: tuple[ImageInfo, ...] = ()
    removed: tuple[str, ...] = ()
    freed_bytes: int = 0
    left_bytes: int = 0
    error: str | None = None
    kind: str | None = None


class LeaseTimes(Struct, frozen=True, kw_only=True):
    """How long a node's `stop` attempts live without an answer: ``lease_ms`` from the sending of Hello or of
    a heartbeat, then ``grace_ms`` at most to end."""

    lease_ms: int
    grace_ms: int


class Welcome(Struct, frozen=True, kw_only=True, tag="welcome"):
    """Server's first message, which also answers Hello as a heartbeat. ``version`` is spoken from now on.
    ``heartbeat_ms``: how often it wants
    to hear one. ``lease``: None where there is no node lease. ``log_window_bytes``: the output of attempts is
    to be shipped, so far ahead of what was acknowledged at first (0: it stays on the node).
    ``takes_artifacts``: what elements have written is to be brought before their success is reported.
    ``servers``: URLs of all servers that are up (empty: this one is the only one)."""

    version: int
    build: str
    term: int
    heartbeat_ms: int = 2_000
    lease: LeaseTimes | None = None
    log_window_bytes: int = 0
    takes_artifacts: bool = False
    servers: tuple[str, ...] = ()


class Refused(Struct, frozen=True, kw_only=True, tag="refused"):
    """Instead of Welcome: why, and after how long to ask again (None: never). ``moved``: the ``leader`` at
    this URL is to be asked, of ``term``; an agent that does not know the fields waits. ``no_leader``: there
    is none at the moment. ``servers`` as in Welcome."""

    message: str
    retry_ms: int | None = None
    leader: str = ""
    term: int = 0
    servers: tuple[str, ...] = ()


class HeartbeatAnswer(Struct, frozen=True, kw_only=True, tag="alive"):
    term: int
    sent_boottime_ms: int


class Ack(Struct, frozen=True, kw_only=True, tag="ack"):
    """The report is committed; what stands in ``forget`` ended and may leave the node's journal."""

    term: int
    seq: int
    forget: tuple[str, ...]


class TaskInfo(Struct, frozen=True, kw_only=True, tag="task"):
    """Sent once a link before the first Start of a task: what all its elements share.

    ``input_tasks`` gives, for each name in ``spec.inputs``, (position, first, last, is an array).
    ``image_digest`` is what its elements run in place of what the image's name stands for now, once the
    first one has run; ``registry_auth`` (registry, user, password) where the server has a login;
    ``secrets`` the values of ``spec.secrets`` by the names of their files, as far as they are stored.
    """

    job: str
    task: int
    job_name: str
    task_name: str
    spec: TaskSpec
    base_dir: str | None
    input_tasks: dict[str, tuple[int, int, int, bool]]
    image_digest: str | None = None
    registry_auth: tuple[str, str, str] | None = None
    secrets: dict[str, bytes] = {}

    def __repr__(self) -> str:
        """Shows neither the password nor a secret's value: a message may come to be logged."""
        return f"TaskInfo(job={self.job!r}, task={self.task!r}, secrets={sorted(self.secrets)})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("job", self.job), ("task", self.task), ("secrets", sorted(self.secrets))]


class Pin(Struct, frozen=True, kw_only=True, tag="pin"):
    """The digest of a task's image, which another element has resolved: of no task told before."""

    job: str
    task: int
    image_digest: str


class ImageCall(Struct, frozen=True, kw_only=True, tag="image_call"):
    """Something to do with the node's images; ``what`` is ls, pull, rm or gc. Answered by ImageAnswers,
    of which the last is ``done``."""

    request: int
    what: str
    reference: str = ""
    base_dir: str | None = None
    registry_auth: tuple[str, str, str] | None = None
    dry_run: bool = False
    everything: bool = False
    """gc: all that is not in use, whatever the budget."""


class Start(Struct, frozen=True, kw_only=True, tag="start"):
    """Start one attempt of an element of each ``(index, number)``. ``devices``: the GPUs of each of
    them, as in AttemptRow; empty where none has any."""

    term: int
    job: str
    task: int
    elements: tuple[tuple[int, int], ...]
    devices: tuple[str | None, ...] = ()


class Stop(Struct, frozen=True, kw_only=True, tag="stop"):
    term: int
    attempt: str
    reason: str
    grace_ms: int


class ReadLog(Struct, frozen=True, kw_only=True, tag="read_log"):
    """Asks for up to ``limit`` bytes of a stream from ``offset``; negative: counted from its end."""

    request: int
    attempt: str
    stream: str
    offset: int
    limit: int


class Maintenance(Struct, frozen=True, kw_only=True, tag="maintenance"):
    """The server is about to stop, and to come back: the lease that the node holds lasts for ``lease_ms``."""

    term: int
    lease_ms: int


class Goodbye(Struct, frozen=True, kw_only=True, tag="goodbye"):
    """A local server ends, for lack of work or by request. The agent goes on with what runs on the
    node; where nothing does and nothing waits to be acknowledged, it ends too."""

    term: int


FromAgent = (
    Hello
    | Heartbeat
    | Report
    | LogChunk
    | LogOpen
    | LogPart
    | ImageAnswer
    | UsageAnswer
    | Pulls
    | ExecSaid
    | ArtifactsAnswer
)
FromServer = (
    Welcome
    | Refused
    | HeartbeatAnswer
    | Ack
    | TaskInfo
    | Pin
    | Start
    | Stop
    | ReadLog
    | LogAck
    | ReadUsage
    | ImageCall
    | Maintenance
    | Goodbye
    | ExecOpen
    | ExecSay
    | ExecClose
    | ArtifactsCall
)

_encoder = msgspec.msgpack.Encoder()
_from_agent = msgspec.msgpack.Decoder(list[FromAgent])
_from_server = msgspec.msgpack.Decoder(list[FromServer])


def encode(messages: Iterable[FromAgent | FromServer]) -> bytes:
    """One frame."""
    return _encoder.encode(list(messages))


def decode_from_agent(frame: bytes) -> list[FromAgent]:
    """Raises msgspec.ValidationError (a DecodeError) on anything that is not such a frame."""
    return _from_agent.decode(frame)


def decode_from_server(frame: bytes) -> list[FromServer]:
    """Raises msgspec.ValidationError (a DecodeError) on anything that is not such a frame."""
    return _from_server.decode(frame)
