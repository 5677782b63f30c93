"""Several servers on one PostgreSQL, each in a network namespace of its own, with nodes and faults between.

The database is reached over TCP through a relay on the bridge, so that a server can be cut off from it alone;
where it has a standby, that one through another relay. Leases may be in a ZooKeeper ensemble on the bridge.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx2
from tests import zookeeper
from tests.e2e.fleet import PYTHON, SHORT, Fleet, Machine
from tests.e2e.home import until
from tests.e2e.pair import Pair
from tests.postgres import DATABASE, USER, Postgres, send, started

from towline.cli.dev.network import entered
from towline.server.vault import KEY_FILE

PORT, SOCKET_PORT = 7443, 5432
STORE_PORTS = (5432, 5433)
"""Where the database, and its standby, are reached."""
QUICK = {
    **SHORT,
    "TOWLINE_LEADERSHIP_LEASE": "2s",
    "TOWLINE_NODE_LEASE": "12s",
    "TOWLINE_LOST_AFTER": "15s",
    "TOWLINE_LOST_AFTER_KEEP": "15s",
}
"""Times of tests that take seconds. A busy machine may take long for nodes to be linked to a new leader."""
PATIENCE_S = 60.0


class Server:
    """One of them. ``http`` asks it through its socket, as an admin."""

    def __init__(self, name: str, folder: Path, space: str, address: str) -> None:
        self.name = name
        self.home = folder / name
        self.home.mkdir(mode=0o700)
        self.space = space
        self.address = f"{address}:{PORT}"
        self.environ: dict[str, str] = {}
        """Of its own."""
        self.process: subprocess.Popen[bytes] | None = None
        transport = httpx2.HTTPTransport(uds=str(self.home / "tow.sock"))
        self.http = httpx2.Client(transport=transport, base_url="http://towline", timeout=30)

    @property
    def url(self) -> str:
        return f"https://{self.address}"

    def start(self, environ: dict[str, str]) -> None:
        argv = [*entered(self.space), *PYTHON, "server", "--home", str(self.home), "--without-agent"]
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*argv, "--listen", self.address],
                env={**os.environ, **environ, **self.environ},
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Of the server itself: nsenter becomes it."""
        assert self.process is not None
        return self.process.pid

    @property
    def is_there(self) -> bool:
        """Whether its socket takes connections."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.home / "tow.sock")) == 0

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def stop(self) -> float:
        """End it cleanly; how long that took, in seconds."""
        begun_s = time.monotonic()
        self.signal(signal.SIGTERM)
        assert self.process is not None
        assert self.process.wait(30) == 0, self.log
        return time.monotonic() - begun_s

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def log(self) -> str:
        return (self.home / "server.log").read_text()

    def cut_from_store(self) -> None:
        self.cut_from_ports(STORE_PORTS)

    def cut_from_ports(self, ports: Iterable[int]) -> None:
        """Of whatever machine."""
        words = ["-p", "tcp", "-m", "multiport", "--dports", ",".join(map(str, ports)), "-j", "DROP"]
        subprocess.run([*entered(self.space), "iptables", "-A", "OUTPUT", *words], check=True)

    def heal(self) -> None:
        subprocess.run([*entered(self.space), "iptables", "-F"], check=True)


@contextlib.contextmanager
def running(*nodes: str, environ: dict[str, str] = QUICK, mounts: str = "") -> Iterator[Several]:
    """Three servers that serve, with these nodes."""
    made = Several(environ=environ, mounts=mounts)
    try:
        made.serve()
        made.join(*nodes)
        yield made
    finally:
        made.close()


class Several(Fleet):
    """``ask`` and all that a ``Fleet`` asks goes to any server that answers."""

    def __init__(
        self,
        count: int = 3,
        environ: dict[str, str] = QUICK,
        mounts: str = "",
        *,
        standby: bool = False,
        leases_in_zookeeper: bool = False,
    ) -> None:
        super().__init__(environ, mounts)
        self.http.close()
        self.joining = "default"
        self._relays: list[subprocess.Popen[bytes]] = []
        self.servers = [self._make(f"s{number}") for number in range(count)]
        self.pair = Pair() if standby else None
        self._single = None if standby else started()
        self.ensemble: zookeeper.Ensemble | None = None
        address = self._network.address
        places = ",".join(f"{address}:{port}" for port in STORE_PORTS[: len(self._databases)])
        self.environ |= {
            "TOWLINE_STORE_URL": f"postgresql://{USER}@{places}/{DATABASE}",
            "TOWLINE_OBJECT_STORE": f"file://{self.folder}/objects",
            "TOWLINE_SHARED_FILES": "true",
        }
        if leases_in_zookeeper:
            self.ensemble = zookeeper.Ensemble(address=address, within=entered(self._network.hub))
            self.environ["TOWLINE_COORDINATION_URL"] = self.ensemble.url("towline")

    @property
    def postgres(self) -> Postgres:
        """The one that takes writes."""
        return self._databases[0] if self.pair is None else self.pair.primary

    @property
    def _databases(self) -> tuple[Postgres, ...]:
        if self.pair is not None:
            return self.pair.slots
        assert self._single is not None
        return (self._single,)

    def _make(self, name: str) -> Server:
        space = self._network.add()
        return Server(name, self.folder, space, self._network.address_of(space))

    def serve(self) -> None:
        """Start all, the first one before the others, and wait until one leads."""
        if self.ensemble is not None:
            self.ensemble.start()
        if self.pair is not None:
            self.pair.start()
        for port, database in zip(STORE_PORTS, self._databases, strict=False):
            self._open_relay(port, database)
        first, *others = self.servers
        first.start(self.environ)
        until(lambda: self._leader_now() is first, "the first server to lead")
        for server in others:
            shutil.copy(first.home / KEY_FILE, server.home / KEY_FILE)
            server.start(self.environ)
        self.lead()

    def _open_relay(self, port: int, database: Postgres) -> None:
        target = database.folder / f".s.PGSQL.{SOCKET_PORT}"
        relay = subprocess.Popen(
            [
                *entered(self._network.hub), sys.executable, "-m", "tests.e2e.several",
                self._network.address, str(port), str(target),
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._relays.append(relay)
        assert relay.stdout is not None
        assert relay.stdout.readline() == b"ready\n"

    def address_of(self, one: Server | Machine) -> str:
        """On the bridge."""
        return self._network.address_of(one.space)

    # --- asking -------------------------------------------------------------------------------------
    @property
    def up(self) -> list[Server]:
        return [one for one in self.servers if one.process is not None and one.process.poll() is None]

    def _says_ready(self, server: Server) -> bool:
        assert server.process is not None
        assert server.process.poll() is None, server.log
        return server.is_there and server.http.get("/readyz").status_code == 200

    def ask(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """Of any server, again and again until it is answered with something else than 503."""
        until_s = time.monotonic() + PATIENCE_S
        while True:
            for server in (one for one in self.up if one.is_there):
                with contextlib.suppress(httpx2.TransportError):
                    answer = server.http.request(method, path, timeout=10, **more)
                    if answer.status_code != 503:
                        return answer
            assert time.monotonic() < until_s, f"nobody answers {method} {path}\n{self.situation()}"
            time.sleep(0.05)

    def get(self, path: str, **query: Any) -> Any:
        answer = self.ask("GET", path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def submit(self, name: str, key: str | None = None, pool: Any = None, **tasks: dict[str, Any]) -> str:
        named = {} if pool is None else {"pool": pool}
        body = {"document": {"name": name, "tasks": tasks, **named}, "params": {}, "base_dir": None}
        headers = {} if key is None else {"idempotency-key": key}
        answer = self.ask("POST", "/v1/jobs", json=body, headers=headers)
        assert answer.status_code in (200, 201), answer.text
        job = str(answer.json()["id"])
        self.submitted[job] = tasks
        return job

    def make_pool(self, name: str) -> None:
        answer = self.ask("POST", "/v1/pools", json={"pool": name})
        assert answer.status_code == 201, answer.text

    def join_link(self) -> str:
        """For ``joining``, the pool that nodes join from now on."""
        answer = self.ask("POST", "/v1/tokens/join", json={"pool": self.joining})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["link"])

    def leaders(self) -> dict[str, Server]:
        """By pool, as some server that answers sees it."""
        found = {view["pool"]: view["address"] for view in self.get("/v1/pools")["pools"]}
        by_address = {server.address: server for server in self.servers}
        return {pool: by_address[address] for pool, address in found.items() if address is not None}

    def views(self, of: Server) -> list[dict[str, Any]]:
        return list(of.http.get("/v1/servers").json()["servers"])

    def _leader_now(self) -> Server | None:
        """Whom a server that is up and answers believes to lead."""
        for server in self.up:
            with contextlib.suppress(httpx2.TransportError, KeyError):
                if not server.is_there:
                    continue
                for view in server.http.get("/v1/servers", timeout=2).json()["servers"]:
                    if view["leads"]:
                        return next(one for one in self.servers if one.address == view["address"])
        return None

    def lead(self) -> None:
        """Wait until somebody leads, and all that run know who."""
        for server in self.up:
            until(lambda server=server: self._says_ready(server), f"{server.name} to be ready")

    def leader(self) -> Server:
        return until(self._leader_now, "a server to lead")

    def followers(self) -> list[Server]:
        leader = self.leader()
        return [server for server in self.up if server is not leader]

    def situation(self) -> str:
        found = [
            f"== {one.name}, pid {one.process.pid}, status {one.process.poll()}, {_how(one.process.pid)}\n"
            f"{one.log[-6000:]}"
            for one in self.servers
            if one.process is not None
        ]
        logs = [*self.folder.glob("*/agent.log"), *self.folder.glob("*/node/keeper.log")]
        found += [f"== {log}\n{log.read_text()[-3000:]}" for log in logs if log.exists()]
        return "\n".join(found)

    def close(self) -> None:
        for server in self.up:
            server.signal(signal.SIGCONT)
        super().close()
        for server in self.servers:
            server.http.close()
            if server.process is not None:
                server.process.wait()
        for relay in self._relays:
            relay.kill()
            relay.wait()
            assert relay.stdout is not None
            relay.stdout.close()
        if self.ensemble is not None:
            self.ensemble.remove()
        if self.pair is not None:
            self.pair.remove()
        if self._single is not None:
            send(self._single.processes(), signal.SIGCONT)
            self._single.remove()


def _how(pid: int) -> str:
    """What the kernel says of a process."""
    try:
        found = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "gone"
    return f"state {found[0]}, {found[11]} and {found[12]} ticks"


def relay(host: str, port: int, target: str) -> None:
    """Carry each connection on to the Unix socket ``target``, with two threads of its own."""
    listener = socket.create_server((host, port), backlog=128)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        outer, _ = listener.accept()
        outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        inner = socket.socket(socket.AF_UNIX)
        try:
            inner.connect(target)
        except OSError:
            inner.close()
            outer.close()
            continue
        for one, other in ((outer, inner), (inner, outer)):
            threading.Thread(target=_copy, args=(one, other), daemon=True).start()


def _copy(one: socket.socket, other: socket.socket) -> None:
    """Until either end closes; then both are closed."""
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
    for each in (one, other):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
    one.close()


if __name__ == "__main__":
    relay(sys.argv[1], int(sys.argv[2]), sys.argv[3])
