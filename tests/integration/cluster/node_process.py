"""A real agent that has joined a cluster, with its keeper and supervisor, and nothing left at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.integration.cluster.cluster_server import ClusterServer
from tests.integration.server_process import PATIENCE_S
from tests.joining import readable

from towline.cli.doctor import processes_of


class NodeProcess:
    def __init__(self, cluster: ClusterServer, name: str, **environ: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="tow-"))
        self.name = name
        self._cluster = cluster
        self._environ = {**os.environ, "TOWLINE_NODE_NAME": name, **environ}
        self.process: subprocess.Popen[bytes] | None = None

    def output(self, attempt: str) -> Path:
        return self.home / "node" / "output" / attempt

    async def start(self) -> None:
        """Start the agent, joining first where it has not, and wait until the server has it."""
        argv = [sys.executable, "-m", "towline.launch", "agent", "--home", str(self.home)]
        with contextlib.ExitStack() as opened:
            fds: tuple[int, ...] = ()
            if not (self.home / "node" / "membership").is_dir():
                fds = (readable(await self._cluster.join_link()),)
                opened.callback(os.close, fds[0])
                argv += ["--join-from", str(fds[0])]
            log = opened.enter_context((self.home / "agent.log").open("ab"))
            self.process = subprocess.Popen(  # noqa: ASYNC220
                argv, env=self._environ, stdout=log, stderr=log, pass_fds=fds
            )
        await self.until("ready")

    async def until(self, state: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await self.state() != state:
                assert self.process is not None
                assert state != "ready" or self.process.poll() is None, self.log()
                await asyncio.sleep(0.05)

    async def state(self) -> str | None:
        nodes = (await self._cluster.get("/v1/nodes"))["nodes"]
        return next((node["state"] for node in nodes if node["name"] == self.name), None)

    def kill(self) -> None:
        """The agent alone: what runs goes on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def destroy(self) -> None:
        """The machine is gone, with all that ran and lay on it."""
        self.close()

    def rss_bytes(self) -> int:
        """The most that the agent had resident so far."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def log(self) -> str:
        return (self.home / "agent.log").read_text()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        while pids := [pid for _, pid in processes_of(self.home)] + self._payloads():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.home, ignore_errors=True)

    def _payloads(self) -> list[int]:
        """Processes of attempts, found by their TOW_OUT."""
        found: list[int] = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"TOW_OUT={self.home}/".encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return [pid for pid in found if pid != os.getpid()]
