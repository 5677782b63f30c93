"""PostgreSQL servers for tests: from the system's package, in folders of their own, reached by Unix sockets.

They run as a user without rights, since PostgreSQL refuses root, and end with the process that started them,
however that ends. Nothing of them stays.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import quote

USER = "towline"
DATABASE = "towline"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
"""How many connections wait for a lock."""
_PATIENCE_S = 60
_ORDINARY = ("postgres", "nobody")
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
    "autovacuum_naptime": "5s",
    "wal_level": "replica",
}


def programs() -> Path:
    """The folder of initdb and postgres; the newest version of the system's."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise RuntimeError("PostgreSQL's server is not installed: run scripts/test-engines.sh")
    return found[-1].parent


class Postgres:
    """One server; ``settings`` are its own beside those of all. ``url`` names its database ``towline``."""

    def __init__(self, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="towline-pg-"))
        self.data = self.folder / "data"
        self.settings = _SETTINGS | {"unix_socket_directories": str(self.folder)} | settings
        self._process: subprocess.Popen[bytes] | None = None
        self._identity = _identity()
        self.own_folder()

    def own_folder(self) -> None:
        if self._identity:
            os.chown(self.folder, self._identity["user"], self._identity["group"])

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@/{DATABASE}?host={quote(str(self.folder), safe='')}"

    def own(self, name: str | Path) -> str:
        """The URL of a part of the database for ``name`` alone: the same name, the same part."""
        schema = f"t{blake2b(str(name).encode(), digest_size=8).hexdigest()}"
        self.run(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        return f"{self.url}&search_path={schema}"

    # --- its life -----------------------------------------------------------------------------------
    def make(self) -> None:
        """Make the database's files."""
        self._call("initdb", "-D", self.data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "-N")

    def copy(self, primary: Postgres) -> None:
        """Take over the primary's files, to become its standby with the next ``start``."""
        self._call("pg_basebackup", "-h", primary.folder, "-U", USER, "-D", self.data, "-R", "-c", "fast")

    def follow(self, primary: Postgres) -> None:
        """Become a standby, and return once the primary waits for it at each commit."""
        self.copy(primary)
        self.start()
        while "sync" not in primary.run("SELECT sync_state FROM pg_stat_replication"):
            if self.ended():
                raise RuntimeError((self.folder / "log").read_text()[-2000:])

    def start(self) -> None:
        """Return once it takes connections. To be called by the main thread: with the thread it would end."""
        options = [f"--{name}={value}" for name, value in self.settings.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_DIES_WITH_US, str(programs() / "postgres"), "-D", str(self.data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **self._identity,
            )
        self._call("pg_isready", "-h", self.folder, "-U", USER, "-t", str(_PATIENCE_S), waits=True)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def children(self) -> list[int]:
        """The pids of its processes."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def processes(self) -> list[int]:
        """Its pid and those of its children; none where it has ended."""
        return [] if self.ended() else [self.pid, *self.children()]

    def takes_connections(self) -> bool:
        if self.ended():
            return False
        asked = [str(programs() / "pg_isready"), "-q", "-h", str(self.folder), "-U", USER, "-t", "1"]
        return subprocess.run(asked, cwd="/", check=False).returncode == 0

    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT ends its connections, SIGQUIT leaves the rest to recovery."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_PATIENCE_S)
            self._process = None

    def kill(self) -> None:
        """As the kernel kills. Its other processes find out by themselves: returns when they are gone."""
        children = self.children()
        self.stop(signal.SIGKILL)
        deadline = time.monotonic() + _PATIENCE_S
        while any(map(_is_there, children)):
            if time.monotonic() > deadline:
                raise RuntimeError(f"of PostgreSQL there is still one of {children}")
            time.sleep(0.02)

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def restart(self) -> None:
        self.stop()
        self.start()

    # --- asking it ----------------------------------------------------------------------------------
    def run(self, sql: str, database: str = DATABASE) -> str:
        """What psql says to it."""
        return self._call("psql", "-h", self.folder, "-U", USER, "-d", database, "-qAtX", "-c", sql)

    def backends(self) -> int:
        """How many connections of Towline there are."""
        return int(self.run("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'towline'"))

    def until_waiting(self, count: int) -> None:
        """Return once so many connections wait for a lock."""
        while int(self.run(WAITING)) < count:
            time.sleep(0.02)

    def _call(self, program: str, *arguments: Any, waits: bool = False) -> str:
        command: Sequence[str] = [str(programs() / program), *map(str, arguments)]
        while True:
            done = subprocess.run(command, capture_output=True, text=True, cwd="/", **self._identity)
            if waits and done.returncode and self._process is not None and self._process.poll() is None:
                continue
            if done.returncode:
                log = self.folder / "log"
                said = log.read_text()[-2000:] if log.exists() else ""
                raise RuntimeError(f"{program}: {done.stdout}{done.stderr}\n{said}")
            return done.stdout.strip()


def _is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def send(pids: Sequence[int], number: signal.Signals) -> None:
    """To each that is still there: what serves a connection may end at any moment."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


_DIES_WITH_US = ("setpriv", "--pdeathsig", "INT", "--")


def _identity() -> dict[str, Any]:
    """As subprocess takes it: of a user without rights, where we are root."""
    if os.getuid() != 0:
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = next(known[name] for name in _ORDINARY if name in known)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def started(**settings: str) -> Postgres:
    """A new server with an empty database."""
    server = Postgres(**settings)
    try:
        server.make()
        server.start()
        server.run(f"CREATE DATABASE {DATABASE}", "postgres")
    except BaseException:
        server.remove()
        raise
    return server


@cache
def shared() -> Postgres:
    """One for all tests of this process, which ends with it."""
    server = started()
    atexit.register(server.remove)
    return server
