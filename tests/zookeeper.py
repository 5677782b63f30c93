"""Ensembles of ZooKeeper servers for tests: from the system's package, in folders and on ports of their own.

They end with the process that started them, however that ends. Nothing of them stays.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE_S = 60
JARS = "/usr/share/java"
_DIES_WITH_US = ["setpriv", "--pdeathsig", "KILL"]
_SETTINGS = """\
tickTime=500
initLimit=20
syncLimit=10
dataDir={data}
clientPort={port}
clientPortAddress={address}
admin.enableServer=false
4lw.commands.whitelist=srvr,dump
standaloneEnabled=false
"""


class Server:
    """One of an ensemble."""

    def __init__(
        self, folder: Path, number: int, place: tuple[str, int], quorum: list[str], within: Sequence[str]
    ) -> None:
        self.place = place
        self._within = within
        self._folder = folder
        data = folder / "data"
        data.mkdir(parents=True)
        (data / "myid").write_text(str(number))
        self._settings = folder / "zoo.cfg"
        address, port = place
        settings = _SETTINGS.format(data=data, address=address, port=port)
        self._settings.write_text(settings + "\n".join(quorum) + "\n")
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
                [*self._within, *_DIES_WITH_US, *java, main, str(self._settings)],
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
        return self.ask("srvr").partition("Mode: ")[2].partition("\n")[0]

    @property
    def sessions(self) -> int:
        """How many there are in the ensemble, as its leader knows."""
        return int(self.ask("dump").partition("Session Sets (")[2].partition("/(")[2].partition(")")[0] or 0)

    def ask(self, word: str) -> str:
        """What it answers; nothing where it does not serve."""
        address, port = self.place
        if self._within:
            argv = [*self._within, sys.executable, "-I", "-S", __file__, address, str(port), word]
            return subprocess.run(argv, capture_output=True, text=True, check=False).stdout
        return _asked(address, port, word)

    @property
    def runs(self) -> bool:
        return self._process is not None

    def log(self) -> str:
        return (self._folder / "log").read_text()[-3000:]


class Ensemble:
    """Three servers; ``url(path)`` is a ``coordination_url``. ``within`` begins commands that are to run in
    another network namespace, where ``address`` is known."""

    def __init__(self, size: int = 3, address: str = "127.0.0.1", within: Sequence[str] = ()) -> None:
        from tests.ports import free_ports  # this file is also a program that finds nothing of ours

        self.folder = Path(tempfile.mkdtemp(prefix="towline-zk-"))
        ports = [free_ports(3) for _ in range(size)]
        quorum = [
            f"server.{number}={address}:{peer}:{election}"
            for number, (_, peer, election) in enumerate(ports, 1)
        ]
        self.servers = [
            Server(self.folder / str(number), number, (address, client), quorum, within)
            for number, (client, *_) in enumerate(ports, 1)
        ]

    def url(self, path: str, login: str = "") -> str:
        places = ",".join(f"{address}:{port}" for address, port in (one.place for one in self.servers))
        return f"zk://{login}{places}/{path}"

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


def _asked(address: str, port: int, word: str) -> str:
    with suppress(OSError), socket.create_connection((address, port), 5) as connection:
        connection.sendall(word.encode())
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode()
    return ""


if __name__ == "__main__":
    sys.stdout.write(_asked(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
