"""A TOWLINE_HOME of its own for a benchmark: real processes, what they cost, and their end."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from benchmarks.alone import retire
from towline.cli.doctor import processes_of

TOW = str(Path(sys.executable).with_name("tow"))
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
READY = b"GET /readyz HTTP/1.1\r\nHost: tow\r\nConnection: close\r\n\r\n"
POLL_S = 0.005
PATIENCE_S = 60.0


class Run(Struct, kw_only=True):
    """A command that has ended: its wall time, its own CPU seconds, its exit status."""

    wall_s: float
    cpu_s: float
    status: int


class Home:
    """The folder and everything that runs for it. The node has 2 CPUs whatever the machine has, so
    that 40 elements of ``cpu: 0.05`` run at a time everywhere."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.env = {**os.environ, "TOWLINE_HOME": str(path), "TOWLINE_NODE_CPU": "2"}
        self.env.pop("TOWLINE_SERVER", None)
        self._server: subprocess.Popen[bytes] | None = None

    # --- running ----------------------------------------------------------------------------------
    def tow(self, *arguments: str, prefix: Sequence[str] = ()) -> Run:
        """Run a command to its end. Raises RuntimeError unless it succeeds."""
        with tempfile.TemporaryFile() as said:
            begin = time.perf_counter()
            process = subprocess.Popen(
                [*prefix, TOW, *arguments], env=self.env, cwd=self.path, stdout=said, stderr=said
            )
            _, status, usage = os.wait4(process.pid, 0)
            wall_s = time.perf_counter() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            if process.returncode != 0:
                raise RuntimeError(
                    f"tow {' '.join(arguments)} failed: {said.read().decode(errors='replace')}"
                )
        return Run(wall_s=wall_s, cpu_s=usage.ru_utime + usage.ru_stime, status=0)

    def start_server(self, prefix: Sequence[str] = (), arguments: Sequence[str] = ()) -> float:
        """Start the server and wait until it is ready; returns the seconds that took."""
        (self.path / "logs").mkdir(exist_ok=True)
        command = [sys.executable, "-P", "-m", "towline.launch", "server", "--home", str(self.path)]
        command += arguments
        begin = time.perf_counter()
        with (self.path / "logs" / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [*prefix, *command], env=self.env, stdout=log, stderr=log, start_new_session=True
            )
        while not self._ready():
            if time.perf_counter() - begin > PATIENCE_S:
                raise RuntimeError(f"the server did not start: {self.log()}")
            select.select([], [], [], POLL_S)
        return time.perf_counter() - begin

    def _ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
            sock.connect(str(self.path / "tow.sock"))
            sock.sendall(READY)
            return sock.recv(4096).startswith(b"HTTP/1.1 200")
        return False

    def log(self) -> str:
        return "\n".join(file.read_text()[-2000:] for file in sorted((self.path / "logs").glob("*.log")))

    # --- looking ----------------------------------------------------------------------------------
    def pid(self, role: str) -> int:
        return dict(processes_of(self.path))[role]

    def pids(self) -> list[tuple[str, int]]:
        """All processes of ours. `tow` replaces a server of another build, so that a change of the
        source in the middle of a run shows here."""
        return processes_of(self.path)

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far by role, and as ``payload`` those of what the supervisor has waited for."""
        found: dict[str, float] = {}
        for role, pid in processes_of(self.path):
            own, children = cpu_of(pid)
            found[role] = found.get(role, 0.0) + own
            if role == "supervisor":
                found["payload"] = found.get("payload", 0.0) + children
        return found

    def memory_bytes(self, role: str) -> int:
        """Resident memory of a process now."""
        for line in Path(f"/proc/{self.pid(role)}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"the {role} has ended")

    # --- the end ----------------------------------------------------------------------------------
    def end_server(self, number: int) -> None:
        """Send the server that ``start_server`` has started a signal that ends it, and wait for its end."""
        assert self._server is not None
        self._server.send_signal(number)
        self._server.wait(PATIENCE_S)

    def stop(self) -> None:
        """End all processes: the server and the agent by SIGTERM, then supervisor and keeper, which
        retire; whatever is left after that by SIGKILL."""
        for role in ("server", "agent"):
            pids = [pid for found, pid in processes_of(self.path) if found == role]
            self._signal(pids, signal.SIGTERM, 15.0)
        retire(str(self.path / "node"))
        deadline = time.monotonic() + PATIENCE_S
        while pids := [pid for _, pid in processes_of(self.path)]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"these processes do not end: {pids}")
            self._signal(pids, signal.SIGKILL, 5.0)
        if self._server is not None:
            self._server.wait(PATIENCE_S)

    def _signal(self, pids: Sequence[int], number: int, patience_s: float) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                try:
                    signal.pidfd_send_signal(descriptor, number)
                    select.select([descriptor], [], [], patience_s)
                finally:
                    os.close(descriptor)


@contextmanager
def fresh_home() -> Generator[Home, None, None]:
    """A home in a new folder; its processes and its files are gone at the end."""
    home = Home(Path(tempfile.mkdtemp(prefix="tow-bench-")))
    try:
        yield home
    finally:
        home.stop()
        shutil.rmtree(home.path)


def cpu_of(pid: int) -> tuple[float, float]:
    """CPU seconds of a process and of its children that it has waited for; zeros if it is gone."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user, system, child_user, child_system = (int(field) * TICK_S for field in fields[11:15])
        return user + system, child_user + child_system
    return 0.0, 0.0


def spent(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {role: value - before.get(role, 0.0) for role, value in after.items()}
