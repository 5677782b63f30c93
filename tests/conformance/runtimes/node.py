"""A node directory with a real keeper and supervisor, and the test in the agent's place."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests import guard

from towline import logs
from towline.agent import control
from towline.agent.keeper import start_keeper
from towline.agent.supervision import kernel
from towline.core.commands import AttemptUpdate
from towline.runtime.port import Plan

MakePlan = Callable[..., Plan]
"""(node directory, attempt, script for sh, **fields of Plan to replace) -> a Plan that runs the script.

TOW_OUT in its environment is where the process finds ``plan.out``."""

PATIENCE_S = 60.0
ROOT = Path(__file__).parents[3]


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait for what no message tells of."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


class Node:
    """``updates`` holds the last update of each attempt, ``history`` all of them in order. ``kills`` is how
    many random ones are enough in every run, unless TOWLINE_KILLS says how many."""

    kills = int(os.environ.get("TOWLINE_KILLS", "8"))

    def __init__(self, make: MakePlan) -> None:
        self.dir = tempfile.mkdtemp(prefix="towline-node-")
        guard.watch(self.dir)
        self.make = make
        self.plans: dict[str, Plan] = {}
        self.updates: dict[str, AttemptUpdate] = {}
        self.history: list[AttemptUpdate] = []
        self.instances: list[str] = []
        self._sock: socket.socket | None = None
        self._data = b""

    def plan(self, script: str, attempt: str | None = None, **fields: object) -> Plan:
        name = attempt or f"job-0-{len(self.plans)}-1"
        plan = self.make(self.dir, name, script, **fields)
        self.plans[name] = plan
        return plan

    def start(self) -> None:
        """Start what is missing."""
        start_keeper(self.dir)

    def connect(self) -> None:
        """Start what is missing, and read the snapshot."""
        self.disconnect()
        while True:
            self.start()
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE_S)
            try:
                sock.connect(f"{self.dir}/supervisor.sock")
                self._sock = sock
                self._data = b""
                if any(isinstance(message, control.Snapshot) for message in self._read()):
                    return
            except OSError:
                pass
            sock.close()
            self._sock = None

    def disconnect(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def send(self, *messages: control.ToSupervisor) -> None:
        """Repeated over a new connection if the supervisor is killed meanwhile."""
        while True:
            if self._sock is None:
                self.connect()
            assert self._sock is not None
            try:
                self._sock.sendall(control.encode(messages))
                return
            except OSError:
                self.disconnect()

    def _read(self) -> list[control.FromSupervisor]:
        """One frame's messages; none at the end of the connection."""
        assert self._sock is not None
        while len(self._data) < 4 or len(self._data) < 4 + int.from_bytes(self._data[:4], "big"):
            more = self._sock.recv(1 << 16)
            if not more:
                return []
            self._data += more
        length = int.from_bytes(self._data[:4], "big")
        body, self._data = self._data[4 : 4 + length], self._data[4 + length :]
        messages = control.decode_from_supervisor(body)
        for message in messages:
            if isinstance(message, control.Snapshot):
                self.instances.append(message.instance)
                self._note(message.known)
            else:
                self._note(message.updates)
        return messages

    def _note(self, updates: tuple[AttemptUpdate, ...]) -> None:
        for update in updates:
            self.updates[update.attempt] = update
            self.history.append(update)

    def listen(self) -> None:
        """Read one frame, over a new connection if it has to be."""
        if self._sock is None:
            self.connect()
            return
        try:
            if self._read():
                return
        except ConnectionError:
            pass
        self.connect()

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"{self.updates}\n{Path(self.dir, 'keeper.log').read_text()}"
            self.listen()

    def state(self, plan: Plan) -> str | None:
        update = self.updates.get(plan.attempt)
        return update.state if update else None

    def run(self, *plans: Plan) -> None:
        self.send(control.Run(plans=plans))

    def stop(self, plan: Plan, reason: str = "cancelled", grace_ms: int = 10_000) -> None:
        self.send(control.StopAttempt(attempt=plan.attempt, reason=reason, grace_ms=grace_ms))

    def ended(self, plan: Plan) -> AttemptUpdate:
        """Wait for its end."""
        self.until(lambda: self.state(plan) in ("finished", "lost"))
        return self.updates[plan.attempt]

    def result(self, script: str, **fields: object) -> AttemptUpdate:
        """Run this and wait for its end."""
        plan = self.plan(script, **fields)
        self.run(plan)
        return self.ended(plan)

    def output(self, plan: Plan, stream: str = "stdout") -> bytes:
        return logs.read(plan.logs, stream, 0, 1 << 30).data

    def printed(self, plan: Plan, text: bytes, stream: str = "stdout") -> None:
        """Wait until it has printed this."""
        eventually(
            lambda: text in self.output(plan, stream), f"{text!r} is not in {self.output(plan, stream)!r}"
        )

    def processes_of(self, plan: Plan) -> list[int]:
        """Those that live and have the attempt's own environment, on this node: others run beside it."""
        names = ("TOW_JOB", "TOW_INDEX", "TOW_OUT", "TEST_NODE")
        mine = [plan.env.get(name) for name in names]
        found = ((pid, kernel.environment(pid)) for pid in kernel.processes())
        return [pid for pid, env in found if [env.get(name) for name in names] == mine]

    @property
    def supervisor(self) -> int:
        if self._sock is None:
            self.connect()
        assert self._sock is not None
        return int.from_bytes(self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")

    @property
    def keeper(self) -> int:
        return self._pair()[1]

    def _pair(self) -> tuple[int, int]:
        """Supervisor and keeper. After the death of a keeper its supervisor may answer for a while yet."""
        while True:
            supervisor = self.supervisor
            process = kernel.process(supervisor)
            if process is not None and process.parent > 1:
                command = Path(f"/proc/{process.parent}/cmdline").read_bytes()
                if b"towline.agent.keeper" in command and self.dir.encode() in command:
                    return supervisor, process.parent
            self.connect()

    def kill(self, who: str) -> None:
        """SIGKILL to ``supervisor``, ``keeper`` or ``both``, and wait until they are dead."""
        supervisor, keeper = self._pair()
        pids = {"supervisor": [supervisor], "keeper": [keeper], "both": [keeper, supervisor]}[who]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)  # so that both die before either can do anything about it
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            eventually(lambda pid=pid: gone(pid), f"{who} {pid} does not die")
        self.disconnect()

    def close(self) -> None:
        """End everything; nothing may be left."""
        for plan in self.plans.values():
            self.stop(plan, grace_ms=0)
        self.until(lambda: all(u.state in ("finished", "lost") for u in self.updates.values()))
        supervisor, keeper = self._pair()
        while not gone(supervisor):  # a clean-up that goes on holds it up
            self.send(control.Retire())
            if _closed(self._sock):
                break
        eventually(lambda: gone(supervisor) and gone(keeper), "keeper or supervisor do not end")
        self.disconnect()
        left = [pid for pid in kernel.processes() if self.dir in kernel.environment(pid).get("TOW_OUT", "")]
        attempts = Path(self.dir, "attempts")
        directories = list(attempts.iterdir()) if attempts.exists() else []
        shutil.rmtree(self.dir)
        guard.forget(self.dir)
        assert (left, directories) == ([], [])


def gone(pid: int) -> bool:
    process = kernel.process(pid)
    return process is None or process.state == "Z"


def _closed(sock: socket.socket | None) -> bool:
    """Whether the connection ends within a moment."""
    if sock is None:
        return True
    sock.settimeout(0.2)
    try:
        while sock.recv(1 << 16):
            continue
    except TimeoutError:
        return False
    except OSError:
        return True
    finally:
        sock.settimeout(PATIENCE_S)
    return True
