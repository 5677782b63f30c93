"""A cluster in network namespaces of its own: a server, nodes on a bridge, and faults between them.

What tasks did is told by what they write themselves, into a folder that all share: ``Stamps``.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
from tests import guard
from tests.e2e.home import LONG_S, Home, until
from tests.e2e.lives import LIVES, Life, read_life
from tests.joining import readable

from towline.cli.dev.network import NETWORK, Network, entered, free_subnet
from towline.cli.doctor import processes_of

PYTHON = [sys.executable, "-P", "-m", "towline.launch"]
SHORT = {
    "TOWLINE_HEARTBEAT": "500ms",
    "TOWLINE_NODE_LEASE": "4s",
    "TOWLINE_LEASE_GRACE": "1s",
    "TOWLINE_LOST_AFTER": "7s",
    "TOWLINE_LOST_AFTER_KEEP": "3s",
}
"""Times of a cluster whose tests take seconds. The lease is long enough for a machine that stalls."""
_numbers = itertools.count()
SUBNET = ipaddress.ip_network("10.99.0.0/16")
WAYS = {"in": ("INPUT",), "out": ("OUTPUT",), "both": ("INPUT", "OUTPUT")}


class Stamps:
    """When each attempt was alive, in seconds since the boot, as it has written itself; see ``lives``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def task(
        self, *nodes: str, code: int = 0, every_s: float = 0.05, lasts_s: float = 0, **fields: Any
    ) -> dict[str, Any]:
        """A task for these nodes. It ends when ``end`` is called, or after ``lasts_s``; not by SIGTERM."""
        told = [str(self.folder), str(code), str(every_s), str(lasts_s)]
        command = [sys.executable, "-I", "-S", "-c", LIVES, *told]
        resources = {"cpu": 0.05, "memory": "32Mi"}
        where = {"node": list(nodes)}
        return {"runtime": "process", "command": command, "resources": resources, "where": where, **fields}

    def end(self, what: str = "") -> None:
        """Have all end, or a ``TASK``, each with its code, or one attempt, ``TASK.INDEX.NUMBER``, with 7."""
        (self.folder / (f"{what}.end" if what else "end")).touch()

    def life(self, task: str, attempt: int, index: int = 0) -> Life:
        return read_life(self.folder / f"{task}.{index}.{attempt}")

    def of(self, task: str, attempt: int, index: int = 0) -> list[float]:
        return self.life(task, attempt, index).stamps

    def attempts(self, task: str, index: int = 0) -> list[int]:
        return sorted(int(path.suffix[1:]) for path in self.folder.glob(f"{task}.{index}.*[0-9]"))

    def overlap_s(self, task: str, index: int = 0) -> float:
        """For how long an attempt lived while a later one did; below 0: how long none did."""
        lives = [self.of(task, attempt, index) for attempt in self.attempts(task, index)]
        return max((earlier[-1] - later[0] for earlier, later in pairwise(lives)), default=float("-inf"))


class Machine:
    """A node in a network namespace: its agent, what can go wrong with it, and its processes."""

    def __init__(self, name: str, fleet: Fleet, space: str) -> None:
        self.name = name
        self.space = space
        self.home = fleet.folder / name
        self._link, self._environ = fleet.join_link, fleet.environ
        self.environ: dict[str, str] = {}
        """Of its own."""
        self.within: list[str] = []
        """The beginning of a command that runs as the agent is to."""
        self.agent: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Its agent; the first time it joins."""
        self.home.mkdir(mode=0o700, exist_ok=True)
        environ = {**os.environ, **self._environ, "TOWLINE_NODE_NAME": self.name, **self.environ}
        argv = [*entered(self.space), *self.within, *PYTHON, "agent", "--home", str(self.home)]
        fds: tuple[int, ...] = ()
        if not (self.home / "node" / "membership").is_dir():
            fds = (readable(self._link()),)
            argv += ["--join-from", str(fds[0])]
        with (self.home / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(
                argv, env=environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL, pass_fds=fds
            )
        for fd in fds:
            os.close(fd)

    def cut_off(self, ways: str = "both") -> None:
        for chain in WAYS[ways]:
            subprocess.run([*entered(self.space), "iptables", "-A", chain, "-j", "DROP"], check=True)

    def lose(self, share: float) -> None:
        """Of all packets, each way."""
        words = ["-m", "statistic", "--mode", "random", "--probability", str(share), "-j", "DROP"]
        for chain in WAYS["both"]:
            subprocess.run([*entered(self.space), "iptables", "-A", chain, *words], check=True)

    def heal(self) -> None:
        subprocess.run([*entered(self.space), "iptables", "-F"], check=True)

    def pids(self, *roles: str) -> list[int]:
        """Of its keeper, supervisor or agent."""
        return [pid for role, pid in processes_of(self.home) if role in roles]

    def signal(self, number: int, *roles: str) -> None:
        for pid in self.pids(*roles):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if number == signal.SIGKILL and "agent" in roles and self.agent is not None:
            self.agent.wait()

    def die(self) -> None:
        """As with its power: everything at once, and again for what was just being started."""
        home = Home(self.home, self.home)
        while pids := [*self.pids("agent", "keeper", "supervisor"), *home.payloads(), *home.contained()]:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self.agent is not None:
                self.agent.wait()


class Fleet:
    """A server in a namespace of its own, or (``reachable``) on a bridge of this machine. ``http`` asks it as
    an admin."""

    def __init__(self, environ: dict[str, str] = SHORT, mounts: str = "", *, reachable: bool = False) -> None:
        """``environ`` is the server's and the nodes'; ``mounts``: what jobs may mount, as in a PATH."""
        self.folder = Path(tempfile.mkdtemp(prefix="tow-"))
        guard.watch(self.folder)
        self.environ = {**environ, "TOWLINE_ALLOWED_MOUNTS": mounts}
        self.machines: dict[str, Machine] = {}
        self.submitted: dict[str, dict[str, dict[str, Any]]] = {}
        """The tasks of each job."""
        self.server: subprocess.Popen[bytes] | None = None
        home = self.folder / "s"
        home.mkdir(mode=0o700)
        self.home = home
        self.http = httpx2.Client(
            transport=httpx2.HTTPTransport(uds=str(home / "tow.sock")), base_url="http://towline", timeout=120
        )
        subnet, hub = (free_subnet(), None) if reachable else (SUBNET, "s")
        # Two may be there at a time, and a network interface's name is short.
        letter = chr(ord("a") + next(_numbers) % 26)
        self._network = Network(f"tow{os.getpid()}{letter}", self.folder / NETWORK, subnet, hub)
        self._network.open()
        self.address = f"{self._network.address}:7443"

    def serve(self) -> None:
        """Start the server, and wait until it is ready."""
        argv = [*entered(self._network.hub), *PYTHON, "server", "--home", str(self.home), "--without-agent"]
        with (self.home / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                [*argv, "--listen", self.address],
                env={**os.environ, **self.environ}, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self.lead()

    def lead(self) -> None:
        """Wait until it takes requests."""
        until(self._is_ready, "the server to be ready")

    def _is_ready(self) -> bool:
        assert self.server is not None
        assert self.server.poll() is None, (self.home / "server.log").read_text()
        with socket.socket(socket.AF_UNIX) as probe:  # the client leaves open what it cannot connect
            if probe.connect_ex(str(self.home / "tow.sock")) != 0:
                return False
        return self.http.get("/readyz").status_code == 200

    def kill_server(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.server.wait()

    def join_link(self) -> str:
        answer = self.http.post("/v1/tokens/join", json={"address": self.address})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["link"])

    def join(self, *names: str) -> list[Machine]:
        """New nodes, side by side; returns when all are ready."""
        return self.start(*map(self.make, names))

    def start(self, *machines: Machine) -> list[Machine]:
        for machine in machines:
            machine.start()
        names = [machine.name for machine in machines]
        until(lambda: all(self.state(name) == "ready" for name in names), f"{names} to be ready")
        return list(machines)

    def make(self, name: str) -> Machine:
        """One that is not started yet, on the bridge."""
        self.machines[name] = Machine(name, self, self._network.add())
        return self.machines[name]

    # --- what it says -------------------------------------------------------------------------------
    def ask(self, method: str, path: str, **more: Any) -> httpx2.Response:
        return self.http.request(method, path, **more)

    def get(self, path: str, **query: Any) -> Any:
        answer = self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def stdout(self, job: str, task: str, index: int) -> bytes:
        """Of an element's newest attempt, wherever it lies. A node that is away for a moment, as each is
        when it leaves a link for a new one, is waited for, where the server says that it has something."""
        path = f"/v1/jobs/{job}/tasks/{task}/elements/{index}/logs"
        until_s = time.monotonic() + LONG_S
        while True:
            answer = self.ask("GET", path, params={"stream": "stdout"})
            assert answer.status_code == 200, answer.text
            lines = [json.loads(line) for line in answer.text.splitlines()]
            away = any("is not connected" in (line.get("note") or "") for line in lines)
            if not away or time.monotonic() > until_s:
                return b"".join(base64.b64decode(line["data"]) for line in lines)
            time.sleep(0.1)

    def state(self, node: str) -> str | None:
        found = {each["name"]: each["state"] for each in self.get("/v1/nodes")["nodes"]}
        return found.get(node)

    def submit(self, name: str, key: str | None = None, **tasks: dict[str, Any]) -> str:
        body = {"document": {"name": name, "tasks": tasks}, "params": {}, "base_dir": None}
        headers = {} if key is None else {"idempotency-key": key}
        answer = self.http.post("/v1/jobs", json=body, headers=headers)
        assert answer.status_code in (200, 201), answer.text
        job = str(answer.json()["id"])
        self.submitted[job] = tasks
        return job

    def attempts(self, job: str, task: str) -> list[dict[str, Any]]:
        """Of all its elements, by element and number."""
        page = self.get(f"/v1/jobs/{job}/tasks/{task}")
        return [attempt for element in page["elements"] for attempt in element["attempts"]]

    def situation(self) -> str:
        logs = [self.home / "server.log", *self.folder.glob("*/agent.log")]
        logs += self.folder.glob("*/node/keeper.log")
        found = [f"== {log}\n{log.read_text()[-3000:]}" for log in logs if log.exists()]
        with contextlib.suppress(httpx2.HTTPError, AssertionError):
            found += [str(self.get(f"/v1/jobs/{job['id']}")) for job in self.get("/v1/jobs")["jobs"]]
        return "\n".join(found)

    # --- the end ------------------------------------------------------------------------------------
    def close(self) -> None:
        for machine in self.machines.values():
            machine.signal(signal.SIGCONT, "agent", "keeper", "supervisor")
        self.http.close()
        guard.end(self.folder)
        for process in (self.server, *(machine.agent for machine in self.machines.values())):
            if process is not None:
                process.wait()
