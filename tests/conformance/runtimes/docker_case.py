"""The suite's plans as busybox containers of an engine, and the process that has them."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from tests.conformance.runtimes.docker_host import Order
from tests.conformance.runtimes.node import ROOT, Node, eventually, gone
from tests.containers import build_busybox_image
from tests.engines import engine

from towline.agent.docker.client import Engine
from towline.agent.docker.images import EngineImages
from towline.model.job import TaskSpec
from towline.runtime.docker.spec import docker_data
from towline.runtime.oci.spec import final_argv_env
from towline.runtime.policy import Policy
from towline.runtime.port import Plan


@cache
def _forker() -> subprocess.Popen[bytes]:
    """It ends with this process, whose end closes its stdin."""
    argv = [sys.executable, "-m", "tests.conformance.runtimes.docker_host"]
    started = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    atexit.register(started.communicate)
    return started


def _start_host(order: Order) -> int:
    forker = _forker()
    assert forker.stdin is not None
    assert forker.stdout is not None
    forker.stdin.write(msgspec.json.encode(order) + b"\n")
    forker.stdin.flush()
    return int(forker.stdout.readline())


class DockerNode(Node):
    """There is one process in place of keeper and supervisor: the engine does the supervising."""

    kills = int(os.environ.get("TOWLINE_KILLS", "3"))

    def __init__(self, make: Callable[..., Plan]) -> None:
        super().__init__(make)
        self._host = 0

    @property
    def name(self) -> str:
        """As the labels of its containers have it."""
        return Path(self.dir).name.rpartition("-")[2]

    def start(self) -> None:
        if self._host and not gone(self._host):
            return
        assert isinstance(self.make, DockerPlans)
        socket = Path(self.dir, "supervisor.sock")
        before = socket.stat().st_ino if socket.exists() else 0
        self._host = _start_host(Order(node_dir=self.dir, url=self.make.url, traits=self.make.traits))
        eventually(lambda: socket.exists() and socket.stat().st_ino != before, "the host does not start")

    def _pair(self) -> tuple[int, int]:
        self.start()
        return self._host, self._host

    def kill(self, who: str) -> None:
        pid, _ = self._pair()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: gone(pid), f"the host {pid} does not die")
        self.disconnect()


class DockerPlans:
    """``url`` and ``traits`` are the engine's."""

    def __init__(self, kind: str, folder: Path) -> None:
        found = engine(kind)
        assert found.url is not None
        self.url, self.traits = found.url, found.traits
        reference = build_busybox_image(folder / "busybox")
        self._image = asyncio.run(self._load(reference))

    @property
    def image_id(self) -> str:
        return self._image.id

    @property
    def ulimits(self) -> list[dict[str, object]]:
        """Those that the engine has to be told."""
        return [{"Name": name, "Soft": most, "Hard": most} for name, most in self.traits.ulimits]

    async def _load(self, reference: str) -> Any:
        engine = Engine(self.url, self.traits.api)
        try:
            return await EngineImages(engine).ensure(reference, None)
        finally:
            await engine.close()

    def __call__(self, node: str, attempt: str, script: str, **fields: Any) -> Plan:
        job, task, index, number = attempt.rsplit("-", 3)
        tow = {"TOW_JOB": job, "TOW_TASK": task, "TOW_INDEX": index, "TOW_ATTEMPT": number}
        tow["TEST_NODE"] = node
        image = self._image
        argv, env = final_argv_env(("sh", "-c", script), None, {}, tow, image.config)
        data = docker_data(
            TaskSpec(), image.id, image.digest, image.config.user, image.config.workdir, [], Policy()
        )
        given = {
            "runtime": "docker",
            "argv": argv,
            "env": env,
            "directory": f"{node}/attempts/{attempt}",
            "logs": f"{node}/output/{attempt}",
            "out": f"{node}/artifacts/{job}/{task}/{index}",
            "timeout_ms": None,
            "grace_ms": 10_000,
            "max_log_bytes": 64 << 20,
            "memory_bytes": 256 << 20,
            "pids": 256,
            "runtime_data": data,
        }
        return Plan(attempt=attempt, **(given | fields))
