"""Runs containers through OciRuntime in a process of its own, as a supervisor would: a subreaper, on a
hybrid machine in a mount namespace without the unified cgroup hierarchy. The tests talk to it.

    with start_host(node_dir) as host:
        result = host.of(image, tmp_path).run("sh", "-c", "exit 3")
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from towline.agent.supervision import kernel
from towline.images import Image
from towline.model.job import TaskSpec
from towline.runtime.oci.ids import COUNT, FIRST_ID, Ids
from towline.runtime.oci.runtime import OciRuntime
from towline.runtime.oci.spec import Isolation, final_argv_env, runtime_data
from towline.runtime.policy import ALL, Policy
from towline.runtime.port import Plan, StartFailed

_numbers = itertools.count(1)
PATIENCE_S = 60.0
"""Nothing here takes so long, on the slowest machine: it hangs, and says where."""

IDS = Ids(FIRST_ID, COUNT, 0, 0)
ANYTHING = Policy(capabilities=(ALL,), privileged=True)
ISOLATIONS = {
    "crun": Isolation(engine="crun", ids=IDS, seccomp="filter", policy=ANYTHING),
    "runc": Isolation(engine="runc", ids=IDS, seccomp="section", policy=ANYTHING),
    "crun without a user namespace": Isolation(engine="crun", seccomp="section", policy=ANYTHING),
}
"""The ways to run containers here that tests go through."""


class Result(NamedTuple):
    """``status`` as of os.waitstatus_to_exitcode; ``helper`` is the command that cleanup asked for."""

    status: int
    out: str
    err: str
    usage: dict[str, Any]
    helper: list[str] | None


class Failed(Exception):
    """StartFailed, on this side of the pipe."""

    def __init__(self, message: str, reason: str) -> None:
        self.reason = reason
        super().__init__(message)


class Host:
    def __init__(self, process: subprocess.Popen[str], node_dir: Path) -> None:
        self.process = process
        self.node_dir = node_dir
        self.image: Image | None = None
        self.folder = node_dir
        self.isolation = ISOLATIONS["crun"]

    def of(self, image: Image, folder: Path, isolation: Isolation = ISOLATIONS["crun"]) -> Host:
        """The same process, with this image, and folders of attempts in ``folder``."""
        host = Host(self.process, self.node_dir)
        host.image, host.folder, host.isolation = image, folder, isolation
        return host

    def ask(self, action: str, **arguments: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([action, arguments]) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "failed" in answer:
            raise Failed(*answer["failed"])
        return answer["done"]

    def plan(self, *command: str, env: dict[str, str] | None = None, task: TaskSpec | None = None,
             image: dict[str, Any] | None = None, **fields: Any) -> Plan:  # fmt: skip
        """A plan as the agent makes it. ``image`` changes fields of the image's configuration, ``fields``
        those of the plan."""
        assert self.image is not None
        config = msgspec.structs.replace(self.image.config, **(image or {}))
        task = task or TaskSpec()
        argv, whole_env = final_argv_env(command or None, None, env or {}, {"TOW_ATTEMPT": "1"}, config)
        attempt = f"t{os.getpid()}x{next(_numbers)}-0-0-1"
        values: dict[str, Any] = {
            "attempt": attempt,
            "runtime": "oci",
            "argv": argv,
            "env": whole_env,
            "directory": str(self.folder / attempt),
            "logs": str(self.folder / "logs"),
            "out": str(self.folder / f"{attempt}.out"),
            "timeout_ms": None,
            "grace_ms": 1000,
            "max_log_bytes": 1 << 20,
            "cpu_milli": 1000,
            "memory_bytes": 64 << 20,
            "pids": 64,
            "runtime_data": runtime_data(
                task, str(self.image.rootfs), config, [str(self.folder)], self.isolation
            ),
        }
        return Plan(**{**values, **fields})

    def run(self, *command: str, **how: Any) -> Result:
        """From launch to clean-up. Raises Failed."""
        plan = self.plan(*command, **how)
        self.start(plan)
        return self.finish(plan)

    def start(self, plan: Plan) -> int:
        """Launch and confirm; the pid of the first process."""
        Path(plan.directory).mkdir()
        Path(plan.out).mkdir(exist_ok=True)
        return self.ask("start", plan=msgspec.to_builtins(plan))

    def finish(self, plan: Plan) -> Result:
        """Wait for its end, measure, clean up."""
        return Result(**self.ask("finish", plan=msgspec.to_builtins(plan)))

    def signal(self, plan: Plan, number: int) -> None:
        self.ask("signal", plan=msgspec.to_builtins(plan), number=number)

    def read_line(self, plan: Plan) -> str:
        """The next line of its stdout."""
        return self.ask("read_line", plan=msgspec.to_builtins(plan))

    def clean(self, plan: Plan) -> list[str] | None:
        """Clean up as a new supervisor does after the old one's death; the command that it asked for."""
        return self.ask("clean", plan=msgspec.to_builtins(plan))


@contextlib.contextmanager
def start_host(node_dir: Path) -> Iterator[Host]:
    argv = [sys.executable, "-m", "tests.container_host", str(node_dir)]
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        try:
            yield Host(process, node_dir)
        finally:
            try:
                process.communicate("", timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:  # it hangs: its containers end with it
                process.kill()


class _Containers:
    """The other side of the pipe."""

    def __init__(self, node_dir: str) -> None:
        self.node_dir = node_dir
        self.runtime = OciRuntime(node_dir)
        self.live: dict[str, tuple[int, int, int]] = {}

    def start(self, plan: Plan) -> int:
        (out, out_write), (err, err_write) = os.pipe(), os.pipe()
        for end in (out, err):
            os.fchmod(end, 0o666)
        try:
            launched = self.runtime.launch(plan, out_write, err_write)
        except StartFailed:
            os.close(out)
            os.close(err)
            raise
        finally:
            os.close(out_write)
            os.close(err_write)
        _, status = os.waitpid(launched.pid, 0)
        try:
            pid = self.runtime.confirm(plan, status)
        except StartFailed:
            os.close(out)
            os.close(err)
            self._clean(self.runtime, plan)
            raise
        self.live[plan.attempt] = (pid, out, err)
        return pid

    def finish(self, plan: Plan) -> dict[str, Any]:
        pid, out, err = self.live.pop(plan.attempt)
        try:
            texts = _read_all(out, err)
            _await_end(pid)
            usage = self.runtime.measure(plan)
        except Hung:
            os.kill(pid, signal.SIGKILL)
            self._clean(self.runtime, plan)
            raise
        except StartFailed:
            self._clean(self.runtime, plan)
            raise
        finally:
            _, status = os.waitpid(pid, 0)
        helper = self._clean(self.runtime, plan)
        return {
            "status": os.waitstatus_to_exitcode(status),
            "out": texts[out],
            "err": texts[err],
            "usage": msgspec.to_builtins(usage),
            "helper": helper,
        }

    def signal(self, plan: Plan, number: int) -> None:
        self.runtime.signal(plan, self.live[plan.attempt][0], number)

    def read_line(self, plan: Plan) -> str:
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(self.live[plan.attempt][1], 1)
            if not byte:
                break
            line += byte
        return line.decode().rstrip("\n")

    def clean(self, plan: Plan) -> list[str] | None:
        self.live.pop(plan.attempt, None)
        return self._clean(OciRuntime(self.node_dir), plan)

    def _clean(self, runtime: OciRuntime, plan: Plan) -> list[str] | None:
        helper = runtime.cleanup(plan)
        if helper is not None:
            subprocess.run(helper, check=False, capture_output=True, timeout=PATIENCE_S)
            runtime.cleaned(plan)
        return None if helper is None else list(helper)

    def end_all(self) -> None:
        for pid, _, _ in self.live.values():
            os.kill(pid, signal.SIGKILL)


class Hung(StartFailed):
    """Something has not ended in time; the text says what there was instead."""


def _await_end(pid: int) -> None:
    """Leaves it unreaped. Raises Hung."""
    pidfd = os.pidfd_open(pid)
    try:
        if not select.select([pidfd], [], [], PATIENCE_S)[0]:
            raise Hung(f"its output has ended, and it has not: {_process(pid)}")
    finally:
        os.close(pidfd)


def _holders(descriptor: int) -> list[str]:
    """Processes that have the same pipe open, besides us."""
    pipe = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
    found: list[str] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(folder.name) != os.getpid() and any(
                os.readlink(fd) == pipe  # noqa: PTH115
                for fd in (folder / "fd").iterdir()
            ):
                found.append(_process(int(folder.name)))
    return found


def _process(pid: int) -> str:
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return f"{pid} {command} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[:2]}"
    return f"{pid} (gone)"


def _read_all(*descriptors: int) -> dict[int, str]:
    """All that comes until every writer is gone; closes them. Raises Hung where nothing comes for long."""
    texts = dict.fromkeys(descriptors, b"")
    left = list(descriptors)
    while left:
        readable = select.select(left, [], [], PATIENCE_S)[0]
        if not readable:
            raise Hung(f"its output does not end; it is open in {_holders(left[0])}")
        for fd in readable:
            data = os.read(fd, 65536)
            texts[fd] += data
            if not data:
                left.remove(fd)
                os.close(fd)
    return {fd: text.decode(errors="replace") for fd, text in texts.items()}


def main(node_dir: str) -> None:
    kernel.become_subreaper()
    hybrid = kernel.hybrid_mount()
    if hybrid is not None:
        kernel.enter_mounts_without(hybrid)
    containers = _Containers(node_dir)
    for line in sys.stdin:
        action, arguments = json.loads(line)
        arguments["plan"] = msgspec.convert(arguments["plan"], Plan)
        try:
            answer = {"done": getattr(containers, action)(**arguments)}
        except StartFailed as error:
            answer = {"failed": [str(error), error.reason]}
        print(json.dumps(answer), flush=True)  # noqa: T201 - the answer to the test
    containers.end_all()


if __name__ == "__main__":
    main(sys.argv[1])
