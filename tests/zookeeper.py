"""Ensembles of ZooKeeper servers for tests: from the system's package, in folders and on ports of their own.

They end with the process that started them, however that ends. Nothing of them stays.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.ports import free_ports

PATIENCE_S = 60
JARS = "/usr/share/java"
_DIES_WITH_US = ["setpriv", "--pdeathsig", "KILL"]
_SETTINGS = """\
tickTime=500
initLimit=20
syncLimit=10
dataDir={data}
clientPort={port}
clientPortAddress=127.0.0.1
admin.enableServer=false
4lw.commands.whitelist=srvr
standaloneEnabled=false
"""


class Server:
    """One of an ensemble."""

    def __init__(self, folder: Path, number: int, ports: tuple[int, int, int], quorum: list[str]) -> None:
        self.port = ports[0]
        self._folder = folder
        data = folder / "data"
        data.mkdir(parents=True)
        (data / "myid").write_text(str(number))
        self._settings = folder / "zoo.cfg"
        self._settings.write_text(_SETTINGS.format(data=data, port=self.port) + "\n".join(quorum) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """What it serves it says once there is a quorum: see ``Ensemble.wait``."""
        classes = ":".join(str(path) for path in sorted(Path(JARS).glob("*.jar")))
        java = [
            "java",
            "-Xmx96m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xshare:auto",
            "-cp",
            classes,
        ]
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_DIES_WITH_US, *java, main, str(self._settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(PATIENCE_S)

    @property
    def mode(self) -> str:
        """leader, follower, or nothing where it does not serve."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(b"srvr")
            said = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
            return said.partition("Mode: ")[2].partition("\n")[0]
        return ""

    def log(self) -> str:
        return (self._folder / "log").read_text()[-3000:]


class Ensemble:
    """Three servers; ``url(path)`` is a ``coordination_url``."""

    def __init__(self, size: int = 3) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="towline-zk-"))
        ports = [free_ports(3) for _ in range(size)]
        quorum = [
            f"server.{number}=127.0.0.1:{peer}:{election}"
            for number, (_, peer, election) in enumerate(ports, 1)
        ]
        self.servers = [
            Server(self.folder / str(number), number, (client, peer, election), quorum)
            for number, (client, peer, election) in enumerate(ports, 1)
        ]

    def url(self, path: str, login: str = "") -> str:
        return f"zk://{login}{','.join(f'127.0.0.1:{server.port}' for server in self.servers)}/{path}"

    def start(self) -> None:
        for server in self.servers:
            server.start()
        self.wait()

    def wait(self, serving: int = 0) -> None:
        """Until so many (all) serve, one of them as the leader."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            modes = [server.mode for server in self.servers]
            if len(list(filter(None, modes))) >= (serving or len(modes)) and "leader" in modes:
                return
            assert time.monotonic() < deadline, "\n".join([str(modes), *(one.log() for one in self.servers)])
            time.sleep(0.1)

    def leader(self) -> Server:
        return next(server for server in self.servers if server.mode == "leader")

    def remove(self) -> None:
        for server in self.servers:
            server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def ensemble() -> Iterator[Ensemble]:
    made = Ensemble()
    try:
        made.start()
        yield made
    finally:
        made.remove()
