"""What a runtime is to a node: the port that ``process`` and ``oci`` implement.

Two processes use it. The agent probes and prepares (images, plans; it may await and take long), and enters
what runs (``Enterable``);
the supervisor launches, signals, measures and cleans up: plain calls that never block, since the
one loop that makes them also moves every container's output. What takes time there (crun) is
spawned, and the supervisor tells of its end.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class Plan(Struct, frozen=True, kw_only=True):
    """All that is needed to run one attempt, resolved: the supervisor asks nobody anything.

    ``directory`` is the attempt's own (made by the supervisor at start, removed at its cleanup);
    ``logs`` is where its output is kept, ``out`` what TOW_OUT is kept in; both outlive it.
    ``runtime_data`` is the runtime's own part (for oci: rootfs, mounts, limits), msgpack-able.
    """

    attempt: str
    runtime: str
    argv: tuple[str, ...]
    env: dict[str, str]
    directory: str
    logs: str
    out: str
    timeout_ms: int | None
    grace_ms: int
    max_log_bytes: int
    lease_ms: int = 0
    """It may live only with the node lease, and start only in the row of leases that began then, in ms of
    CLOCK_BOOTTIME; 0: it needs none."""
    inputs: tuple[tuple[str, str], ...] = ()
    """(folder on the node, target in the container) of each needed task's or element's artifacts."""
    cpu_milli: int = 1000
    memory_bytes: int = 0
    pids: int = 0
    disk_bytes: int = 0
    """The most that it may write to its own root and to TOW_OUT; 0: as much as there is."""
    secrets: str = ""
    """The folder in memory that has its secrets as files, removed with all else of it; see ``secrets``."""
    devices: tuple[str, ...] = ()
    """Device nodes of the machine that the attempt sees under the same names, its GPUs."""
    runtime_data: dict[str, object] = {}


class Usage(Struct, kw_only=True):
    """What an attempt used, as the kernel counted it; None where it is not known."""

    peak_memory_bytes: int | None = None
    cpu_ms: int | None = None
    oom_killed: bool = False
    """The kernel's OOM killer struck inside the attempt's own limit."""
    disk_full: bool = False
    """Its own disk, as far as it has one, is full."""


class Launched(Struct, kw_only=True):
    """``pid`` is a child of the caller. ``direct``: it is the attempt's first process itself; else
    it is a starter, and when it ends ``confirm`` gives the first process, a child by then."""

    pid: int
    direct: bool


class StartFailed(Exception):
    """The attempt cannot start. ``reason`` is a Reason's word, ``supervision_lost`` where the start was
    broken from outside and may succeed next time; the text is for people."""

    def __init__(self, message: str, reason: str = "start_failed") -> None:
        self.reason = reason
        super().__init__(message)


class Runtime(Protocol):
    """The supervisor's half. Every method is quick; none raises but as said."""

    name: str

    def launch(self, plan: Plan, stdout: int, stderr: int) -> Launched:
        """Spawn it with these descriptors as its output. Raises StartFailed, having undone everything."""
        ...

    def confirm(self, plan: Plan, status: int) -> int:
        """After the starter ended with this wait status: the pid of the first process. Raises StartFailed."""
        ...

    def signal(self, plan: Plan, pid: int, number: int) -> None:
        """Send a signal: SIGKILL to every process of the attempt, any other to the first one
        (``process``: to its process group). No error if it is gone."""
        ...

    def measure(self, plan: Plan, executed: bool = True) -> Usage:
        """After the first process ended and before ``cleanup``; a child of ours is not reaped yet.

        Raises StartFailed where that process never became the attempt's program: where it can be seen,
        or the caller saw it before it was reaped (``executed`` is False).
        """
        ...

    def written(self, plan: Plan) -> tuple[str, ...]:
        """The folders that count for its disk limit and have no end of their own."""
        ...

    def cleanup(self, plan: Plan) -> tuple[str, ...] | None:
        """Take away what the start made; returns a command to spawn, after whose end ``cleaned``
        is called, or None where all is done. Idempotent: also called for attempts of dead supervisors."""
        ...

    def cleaned(self, plan: Plan) -> None:
        """The rest of the clean-up, after cleanup's command ended. Idempotent."""
        ...


class Wish(Struct, frozen=True, kw_only=True):
    """A further command inside a running attempt. ``env`` goes over the attempt's own; ``workdir`` and
    ``user`` are the attempt's own where they are None. ``mark`` is the value of TOW_EXEC in its environment,
    by which everything that it starts is found and ended; see ``exec.marks``. ``terminal``: (rows, columns)
    of one that it gets, None: it gets pipes."""

    argv: tuple[str, ...]
    mark: str
    env: dict[str, str] = {}
    user: str | None = None
    workdir: str | None = None
    terminal: tuple[int, int] | None = None


class CannotExec(Exception):
    """The command cannot be started in the attempt. ``status`` is what a shell would end with: 126 where it
    is no program that may be run, 127 where there is none. 0: the wish itself is wrong."""

    def __init__(self, message: str, status: int = 126) -> None:
        self.status = status
        super().__init__(message)


class Entry(Protocol):
    """How to enter an attempt: what the agent spawns, as its own child, to run a Wish."""

    program: str
    argv: tuple[str, ...]
    env: dict[str, str]
    directory: str
    """Where it is spawned."""
    space_of: int
    """The pid of a process in whose user namespace's parent it is spawned, with ``hidden`` (a folder, or
    None) out of its sight; 0: in our own."""
    hidden: str | None
    console: str | None
    """The program connects to a Unix socket of this name (in ``directory``) and sends the terminal that it
    has made; None: it is given one."""
    is_command: bool
    """The program is the command itself; else it is an engine, which writes the command's pid into ``pid``
    in ``directory`` once that runs, and whose own words before are not the command's."""

    def why(self, status: int) -> CannotExec:
        """Why nothing ran, after the engine ended with this exit status."""
        ...


class Enterable(Protocol):
    """The agent's half of a runtime whose attempts can be entered."""

    def entry(self, plan: Plan, pid: int, wish: Wish, folder: str) -> Entry:
        """How to run a wish in the running attempt whose first process is ``pid``, with no rights that the
        attempt has not. ``folder`` is for files of this one entry; whoever made it removes it.
        Raises CannotExec."""
        ...


class Probe(Struct, kw_only=True):
    """``problem``: why the runtime cannot run here, a sentence with a remedy; None if it can.
    ``protects`` names what it gives: of "userns", "seccomp", "memory", "cpu", "pids", "disk", "network",
    "rootfs"."""

    name: str
    version: str | None
    problem: str | None
    protects: tuple[str, ...] = ()
    lacks: dict[str, str] = {}
    """Why it gives not the others, and what to do."""
