"""A TOWLINE_HOME of its own with real ``tow`` processes, and nothing left of them at the end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e import warm

from towline.agent.supervision.attempt import Replay
from towline.agent.supervision.journal import unpack
from towline.cli.dev.remains import contained, kill_all, payloads
from towline.cli.doctor import processes_of

TOW = [warm.TOW]
LONG_S = 120
SOONEST_S, LATEST_S = 0.02, 0.2
"""Between two looks at what is waited for."""


class Maker:
    """Makes tasks that run a shell script: in a container of ``image``, else as a plain process."""

    def __init__(self, image: str | None = None) -> None:
        self.image = image

    def __call__(self, script: str, **fields: Any) -> dict[str, Any]:
        base: dict[str, Any] = {"runtime": "process"} if self.image is None else {"image": self.image}
        resources = {"cpu": 0.1, "memory": "32Mi", **fields.pop("resources", {})}
        return {**base, "command": ["sh", "-c", script], "resources": resources, **fields}

    def place(self, path: str) -> str:
        """Where inputs are found: containers have folders of their own, processes their working folder."""
        return path.lstrip("/") if self.image is None else path


class Home:
    """``work`` is the folder in which commands run and job files lie."""

    def __init__(self, path: Path, work: Path) -> None:
        self.path = path
        self.work = work
        self.env = {**os.environ, "TOWLINE_HOME": str(path)}
        self.env.pop("TOWLINE_SERVER", None)
        self.program = TOW
        self.identity: dict[str, Any] = {}
        """Of whom commands run as, as subprocess takes it; who runs the tests, where it says nothing."""
        self.newest: str | None = None
        """The newest job that was there before the test; None: there was none."""
        self._started: list[subprocess.Popen[str]] = []

    def ready(self) -> None:
        """For a command that a test starts itself, with ``env``."""

    # --- commands --------------------------------------------------------------------------------
    def tow(
        self, *arguments: str, status: int | None = 0, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        told: dict[str, Any] = {"text": True, **self.identity, **options}
        try:
            if self.program is TOW and warm.is_fit(self.env, told):
                done = warm.run([*arguments], env=self.env, cwd=self.work, timeout=LONG_S, **told)
            else:
                done = subprocess.run(
                    [*self.program, *arguments],
                    env=self.env, cwd=self.work, capture_output=True, timeout=LONG_S, check=False, **told,
                )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{error}\n{self.situation()}") from None
        assert status is None or done.returncode == status, (arguments, done, self.log())
        return done

    def json(self, *arguments: str, status: int | None = 0) -> Any:
        return json.loads(self.tow(*arguments, "--json", status=status).stdout)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """A command that goes on beside the test, as a shell would start it: in a group of its own."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [*self.program, *arguments]
        started = subprocess.Popen(
            command, env=self.env, cwd=self.work, process_group=0, **{**pipes, **self.identity, **options}
        )
        self._started.append(started)
        return started

    def job_file(self, tasks: dict[str, Any], name: str = "job", **fields: Any) -> str:
        """Write a job file; returns its path."""
        path = self.work / f"{name}.json"
        path.write_text(json.dumps({"name": name, **fields, "tasks": tasks}))
        return str(path)

    def submit(self, tasks: dict[str, Any], name: str = "job", **fields: Any) -> str:
        return self.tow("submit", self.job_file(tasks, name, **fields)).stdout.strip()

    def run(self, tasks: dict[str, Any], status: int | None = 0, **fields: Any) -> Any:
        """Run a job to its end; returns its JSON document."""
        return self.json("run", self.job_file(tasks, **fields), status=status)

    def jobs(self) -> list[dict[str, Any]]:
        """Those of this test, newest first."""
        found: list[dict[str, Any]] = self.json("jobs", "-n", "1000")["jobs"]
        names = [job["id"] for job in found]
        return found[: names.index(self.newest) if self.newest in names else None]

    # --- what can be seen from outside -----------------------------------------------------------
    def processes(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for role, pid in processes_of(self.path):
            found.setdefault(role, []).append(pid)
        return found

    def is_untouched(self) -> bool:
        """Whether no command has needed a server; of a home of its own."""
        return not self.processes()

    @property
    def database(self) -> Path:
        """The server's."""
        return self.path / "state.db"

    def log(self) -> str:
        files = sorted((*(self.path / "logs").glob("*.log"), *(self.path / "node").glob("keeper.log")))
        return "\n".join(f"== {file.name}\n{file.read_text()[-4000:]}" for file in files)

    def situation(self, *jobs: str) -> str:
        """All that can tell why something does not go on; for the message of a test that fails."""
        asked = [("nodes",), ("jobs",)]
        asked += [command for job in jobs for command in (("job", job), ("why", job))]
        found = [f"processes: {self.processes()}, of attempts: {self.payloads()}"]
        for command in asked:
            try:
                done = subprocess.run(
                    [*self.program, *command, "--json"],
                    env=self.env,
                    cwd=self.work,
                    **self.identity,
                    capture_output=True,
                    text=True,
                    timeout=20,
                    check=False,
                )
                found.append(f"== tow {' '.join(command)}\n{_unended(done.stdout) or done.stderr}")
            except subprocess.TimeoutExpired as error:
                found.append(str(error))
        attempts = self.path / "node" / "attempts"
        found.append(f"== {attempts}\n{sorted(path.name for path in attempts.glob('*'))}")
        found.append(f"== journal\n{_journal(self.path / 'node' / 'journal' / 'journal')}")
        return "\n".join([*found, self.log()])

    def payloads(self) -> list[int]:
        """Processes of attempts of this home, found by their TOW_OUT or their folder."""
        return payloads(self.path)

    def contained(self) -> list[int]:
        """Processes in the cgroups of this home's attempts: also those in containers, which name the home
        nowhere else."""
        return contained(self.path)

    def payload_of(self, word: bytes) -> int:
        """The one process of an attempt that has a word in its command line."""
        found: list[int] = []
        for pid in self.payloads():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if word in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        (payload,) = found
        return payload

    def close(self) -> None:
        """End everything that runs for this home: cleanly first, then by its pids."""
        self.end_started()
        if self.processes():
            self.tow("stop", status=None)
        left = kill_all(self.path, patience_s=30)
        assert not left, f"these do not end: {left}"

    def end_started(self) -> None:
        """The commands that go on beside the test."""
        for command in self._started:  # a command that still follows would start a server again
            if command.poll() is None:
                command.kill()
            for stream in (command.stdout, command.stderr):
                if stream is not None:
                    stream.close()
            command.wait()


def _unended(answer: str) -> str:
    """A job's document without the elements that have succeeded, and of the others a few; others as is."""
    try:
        view = json.loads(answer)
    except ValueError:
        return answer
    for task in view.get("tasks") or []:
        task["elements"] = [e for e in task.get("elements", []) if e["state"] != "succeeded"][:30]
    return json.dumps(view)


def _journal(path: Path) -> str:
    """How each attempt stands that a supervisor has not been told to forget."""
    if not path.exists():
        return "none"
    known = Replay(unpack(path.read_bytes())[0]).attempts.values()
    return "\n".join(f"{attempt.now()} pid {attempt.pid} cleaned {attempt.cleaned}" for attempt in known)


def until(condition: Callable[[], Any], what: str, timeout_s: float = LONG_S) -> Any:
    """Wait until something outside of this process is so; returns the first true value. To ask costs CPU
    time, here and there: what takes long is asked for less often, and noticed at most a tenth later."""
    began_s = time.monotonic()
    while not (value := condition()):
        waited_s = time.monotonic() - began_s
        assert waited_s < timeout_s, f"waited {timeout_s} s in vain for: {what}"
        time.sleep(min(max(SOONEST_S, waited_s / 10), LATEST_S))
    return value


def gone(pid: int) -> None:
    """Wait for the end of a process that may be no child of ours."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            assert select.select([descriptor], [], [], LONG_S)[0], f"process {pid} does not end"
        finally:
            os.close(descriptor)
