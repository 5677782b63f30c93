"""A cluster of plain processes, as people start them: a server and agents that join it with links."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.e2e.home import TOW, Home, until
from tests.integration.cluster.cluster_server import free_port


class Cluster:
    """A server and its nodes as processes of their own; ``admin`` runs tow on the server's machine,
    ``user`` on another one."""

    def __init__(self, folder: Path, work: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.admin = Home(folder / "s", work)
        self.user = Home(folder / "u", work)
        self.user.env |= {"HOME": str(folder / "user"), "XDG_CONFIG_HOME": str(folder / "user")}
        del self.user.env["TOWLINE_HOME"]
        self._processes: list[subprocess.Popen[bytes]] = []

    def serve(self) -> subprocess.Popen[bytes]:
        out = self.folder / "s" / "out"
        before = out.read_bytes().count(b"Serving") if out.exists() else 0
        server = self._start("server", self.folder / "s", "--listen", f"127.0.0.1:{self.port}")
        until(lambda: out.read_bytes().count(b"Serving") > before, "the server to start")
        self.admin.tow("nodes")  # waits until it answers
        return server

    def join(self, name: str, *into: str) -> subprocess.Popen[bytes]:
        """``into``: further words for the command that makes the link."""
        made = self.admin.json("token", "create", "--join", "--address", f"127.0.0.1:{self.port}", *into)
        # The link is a secret: the agent, which others of this user may look at, has it nowhere.
        agent = self._start("agent", self.folder / name, "--name", name, TOWLINE_JOIN=made["link"])
        until(lambda: self.state(name) == "ready", f"{name} to be ready")
        for file in ("environ", "cmdline"):
            assert b"token=" not in Path(f"/proc/{agent.pid}/{file}").read_bytes()
        return agent

    def _start(self, what: str, home: Path, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        home.mkdir(mode=0o700, exist_ok=True)
        with (home / "out").open("ab") as out:
            known = {**os.environ, "TOWLINE_HOME": str(home), **environ}
            started = subprocess.Popen([*TOW, what, *arguments], env=known, stdout=out, stderr=out)
        self._processes.append(started)
        return started

    def state(self, name: str) -> str | None:
        nodes = self.admin.json("nodes")["nodes"]
        return next((node["state"] for node in nodes if node["name"] == name), None)

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
        for home in self.folder.iterdir():
            made = Home(home / "agent" if (home / "agent").is_dir() else home, self.folder)
            made.close()
