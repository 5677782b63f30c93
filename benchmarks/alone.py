"""The runtime's own time: keeper and supervisor alone, asked over their socket as an agent does."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

from benchmarks.figures import Figure, Options, Report, median_of
from benchmarks.peers import posix_spawn
from towline.agent import control
from towline.agent.keeper import start_keeper
from towline.core.commands import AttemptUpdate
from towline.runtime.port import Plan

RETIRE_PATIENCE_S = 10.0


class Supervisor:
    """A connection to the supervisor of a node; it replaces any other."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(f"{node}/supervisor.sock")
        self._stream = self._sock.makefile("rb")
        self._started = 0

    def run(self, count: int, at_a_time: int = 1) -> float:
        """Run ``true`` so many times; returns the seconds until the last one's end was told."""
        waiting = deque(self._plan() for _ in range(count))
        begin = time.perf_counter()
        self._send(control.Run(plans=tuple(waiting.popleft() for _ in range(min(at_a_time, count)))))
        ended = 0
        while ended < count:
            done = [update for update in self._updates() if update.state == "finished"]
            ended += len(done)
            if ended == count:
                took_s = time.perf_counter() - begin
            more = tuple(waiting.popleft() for _ in range(min(len(done), len(waiting))))
            forget = control.Forget(attempts=tuple(update.attempt for update in done))
            self._send(*([control.Run(plans=more)] if more else []), forget)
        return took_s

    def _send(self, *messages: control.ToSupervisor) -> None:
        self._sock.sendall(control.encode(messages))

    def _updates(self) -> list[AttemptUpdate]:
        body = self._stream.read(int.from_bytes(self._stream.read(4), "big"))
        messages = control.decode_from_supervisor(body)
        found = [u for m in messages if isinstance(m, control.Changed) for u in m.updates]
        failed = [update for update in found if update.state == "finished" and update.exit_code != 0]
        if failed:
            raise RuntimeError(f"true did not succeed: {failed[0]}")
        return found

    def _plan(self) -> Plan:
        number, node = self._started, self._node
        self._started += 1
        env = {"TOW_JOB": "bench", "TOW_TASK": "t", "TOW_INDEX": str(number), "TOW_ATTEMPT": "1"}
        out = f"{node}/artifacts/bench/0/{number}"
        return Plan(
            attempt=f"bench-0-{number}-1",
            runtime="process",
            argv=("true",),
            env={"PATH": "/usr/bin:/bin", "TOW_OUT": out, **env},
            directory=f"{node}/attempts/bench-0-{number}-1",
            logs=f"{node}/output/bench-0-{number}-1",
            out=out,
            timeout_ms=None,
            grace_ms=10_000,
            max_log_bytes=1 << 26,
        )

    def close(self) -> None:
        self._stream.close()
        self._sock.close()


@contextmanager
def supervisor_alone() -> Generator[Supervisor, None, None]:
    """Keeper and supervisor of a new node, gone at the end."""
    node = tempfile.mkdtemp(prefix="tow-bench-node-")
    try:
        start_keeper(node)
        supervisor = Supervisor(node)
        supervisor.run(20)  # warm
        yield supervisor
        supervisor.close()
    finally:
        retire(node)
        shutil.rmtree(node)


def retire(node: str) -> None:
    """Ask a node's supervisor and keeper to end, and wait for it; nothing where there are none."""
    with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
        sock.settimeout(RETIRE_PATIENCE_S)
        sock.connect(f"{node}/supervisor.sock")
        sock.sendall(control.encode([control.Retire()]))
        while sock.recv(65536):
            pass


def run(options: Options) -> Report:
    """The ``supervisor`` benchmark: keeper and supervisor against a bare loop."""
    count = options.count(10_000, least=100)
    ratios: list[float] = []
    rates: list[float] = []
    with supervisor_alone() as supervisor:
        for _ in range(options.pairs):
            bare_s = posix_spawn(count).wall_s
            ours_s = supervisor.run(count, at_a_time=40)
            ratios.append(bare_s / ours_s)
            rates.append(count / ours_s)
        single_ms = [supervisor.run(1) * 1000 for _ in range(50)]
        bare_ms = [posix_spawn(100).wall_s * 10 for _ in range(5)]
    figures: list[Figure] = [
        median_of("of a serial posix_spawn loop", ratios, "x"),
        median_of("rate", rates, "/s"),
        median_of("one `true`", single_ms, "ms"),
        median_of("one posix_spawn and waitpid", bare_ms, "ms"),
    ]
    title = f"{count:,} x true through keeper and supervisor alone, 40 at a time"
    method = f"in turn with the loop, {options.pairs} pairs; no server and no agent: the most that can be had"
    return Report(name="supervisor", title=title, method=method, figures=figures)
