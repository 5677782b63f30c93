"""The local server: finding it under TOWLINE_HOME, starting it where there is none, replacing an older one.

Whoever starts a server holds ``HOME/start.lock`` until it is ready; a server that ends takes the same
lock first. So with the lock in hand, a socket that does not answer means that nobody serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from towline.build import build
from towline.client.api import Client
from towline.client.cluster.contexts import chosen
from towline.client.cluster.patience import TELL_AFTER_S, Tell
from towline.client.cluster.remote import Remote
from towline.errors import NO_ROOM, NotFound, RequestError, TowlineError, Unavailable

SOCKET = "tow.sock"
LOCK = "start.lock"
CLUSTER = "cluster"
"""In a home whose server others reach too: `tow server` has made it."""
SERVER_LOCK = "server.lock"
SERVER_LOG = Path("logs") / "server.log"

_MAX_SOCKET_PATH = 107
_LOCK_WAIT_S = 60.0
_START_WAIT_S = 60.0
_CLUSTER_WAIT_S = 10.0
_STOP_WAIT_S = 30.0
_ANSWER_WAIT_S = 10.0
_POLL_S = 0.01
_LOG_LINES = 15
_LEAST_BYTES = 256 * 1024
"""A server needs about as much to start: its database, and that one's log and index."""

_KILLED = f"signal {int(signal.SIGKILL)}"

_children: set[int] = set()


class _Killed(Unavailable):
    """Somebody killed the server that was starting."""


def home_directory(home: str | Path | None = None) -> Path:
    """``home``, else TOWLINE_HOME, else ``~/.towline``: made if missing, and open to its owner alone.

    Raises RequestError where it is no directory, belongs to somebody else or has too long a name.
    """
    given = home or os.environ.get("TOWLINE_HOME") or Path.home() / ".towline"
    path = Path(given).expanduser().absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = path.resolve()
        found = path.stat()
    except OSError as error:
        raise _unusable(path, error) from None
    if found.st_uid != os.geteuid():
        raise RequestError(
            f"TOWLINE_HOME {path} belongs to user {found.st_uid}, and you are user {os.geteuid()}: "
            "set TOWLINE_HOME to a directory of your own."
        )
    if found.st_mode & 0o077:
        _close_to_others(path)
    if len(os.fsencode(path / SOCKET)) > _MAX_SOCKET_PATH:
        raise RequestError(
            f"TOWLINE_HOME {path} has too long a name for a Unix socket: use a path of at most "
            f"{_MAX_SOCKET_PATH - len(SOCKET) - 1} bytes."
        )
    return path


def _close_to_others(path: Path) -> None:
    try:
        ours = (path / LOCK).exists() or (path / "state.db").exists() or not any(path.iterdir())
        if ours:
            path.chmod(0o700)
    except OSError as error:
        raise _unusable(path, error) from None
    if not ours:
        raise RequestError(
            f"TOWLINE_HOME {path} is open to other users and holds other files: "
            f"use a directory of its own, or run: chmod 700 {path}"
        )


def _unusable(home: Path, error: OSError) -> TowlineError:
    """What is wrong with a home that cannot be read or written, in a sentence."""
    if error.errno in NO_ROOM:
        return Unavailable(f"There is no space left in TOWLINE_HOME {home}: free some, then try again.")
    return RequestError(
        f"TOWLINE_HOME {home} cannot be used: {error.strerror}. Set TOWLINE_HOME to a directory of your own."
    )


def _space(home: Path) -> str:
    """A sentence in front of what a server has said that did not start, where its disk is full."""
    try:
        found = os.statvfs(home)
    except OSError:
        return ""
    left = found.f_bavail * found.f_frsize
    if left < _LEAST_BYTES or (found.f_files > 0 and found.f_favail == 0):
        return f"There is no space left in TOWLINE_HOME {home} ({left:,} bytes are free): free some.\n"
    return ""


async def connect(home: str | Path | Remote | None = None, waiting: Tell | None = None) -> Client:
    """A client of the server that is meant: ``home``, which is one over the network or a TOWLINE_HOME, else
    the one that a context or TOWLINE_SERVER names, else the local one. That is started if it does not run,
    or replaced if it is another build.

    ``waiting``: see Client; of a server that nobody here starts. Raises RequestError for a home that cannot
    be used, Unavailable where no server can be started.
    """
    remote = home if isinstance(home, Remote) else chosen() if home is None else None
    if remote is not None:
        return Client(remote, waiting=waiting)
    assert not isinstance(home, Remote)
    local = LocalServer(home_directory(home))
    # That of a cluster is started by its operator: it is waited for, and none is started in its place.
    clustered = (local.home / CLUSTER).exists()
    if clustered:
        client = Client(local.socket, start=local.ensure_cluster, waiting=_at_most(waiting, _CLUSTER_WAIT_S))
    else:
        client = Client(local.socket, start=local.ensure)
    try:
        await local.agree(client)
    except BaseException:
        await client.close()
        raise
    return client


def _at_most(waiting: Tell | None, limit_s: float) -> Tell | None:
    return None if waiting is None else lambda left_s: waiting(min(left_s, limit_s - TELL_AFTER_S))


class LocalServer:
    """The server of one TOWLINE_HOME."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.socket = home / SOCKET
        self.log = home / SERVER_LOG
        self._started = False

    async def status(self) -> int | None:
        """What ``/readyz`` answers on the socket: 200 when ready; None where nobody answers."""
        try:
            reader, writer = await asyncio.open_unix_connection(os.fspath(self.socket))
        except OSError:
            return None
        try:
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: tow\r\nConnection: close\r\n\r\n")
            await writer.drain()
            line = await asyncio.wait_for(reader.readline(), timeout=_ANSWER_WAIT_S)
            return int(line.split(b" ")[1])
        except (OSError, TimeoutError, IndexError, ValueError):
            return None
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def ensure(self) -> None:
        """Return when a server is ready: start one, unless another command has just done so.

        Raises Unavailable, with the end of its log, where it does not come up.
        """
        if not self.home.is_dir():
            raise Unavailable(f"TOWLINE_HOME {self.home} is gone, and with it all that was known of jobs.")
        async with self._lock():
            if await self.status() is None:
                await self._start()
            await self._until_ready()

    async def ensure_cluster(self) -> None:
        """Wait a while for a server that its operator starts. Raises Unavailable where none comes."""
        deadline = time.monotonic() + _CLUSTER_WAIT_S
        while await self.status() is None:
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"The server of the cluster in {self.home} does not run: start it with `tow server`, or "
                    f"remove {self.home / CLUSTER} to go back to a server for this machine alone."
                )
            await asyncio.sleep(_POLL_S)

    async def _until_ready(self) -> None:
        """A server that loads its pool again says 503 meanwhile; it is not to be replaced for that."""
        deadline = time.monotonic() + _START_WAIT_S
        while await self.status() not in (200, None):
            if time.monotonic() > deadline:
                raise Unavailable(f"No server is ready after {_START_WAIT_S:.0f} s: see {self.log}")
            await asyncio.sleep(_POLL_S)

    async def agree(self, client: Client) -> None:
        """The handshake: a server of another build is stopped and ours started; containers go on."""
        server = await client.server()
        if server.build == build() or self._started:
            return
        if not server.local:  # others use it too: it is its operator who changes its version
            return
        with contextlib.suppress(Unavailable, NotFound):
            await client.stop_server()
        await self.gone()
        await self.ensure()
        await client.reconnect()

    async def gone(self) -> None:
        """Wait until nobody accepts connections on the socket any more, and the server that did has
        ended: it holds its lease for life."""
        deadline = time.monotonic() + _STOP_WAIT_S
        while await self._accepts() or self._leased():
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"The server of {self.home} was asked to end and still runs after {_STOP_WAIT_S:.0f} s: "
                    f"see {self.log}"
                )
            await asyncio.sleep(_POLL_S)
        _reap()

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(os.fspath(self.socket))
        except OSError:
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True

    def _leased(self) -> bool:
        """Whether a server holds the lease of the home, a lock that the kernel frees at its death."""
        try:
            descriptor = os.open(self.home / SERVER_LOCK, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @asynccontextmanager
    async def _lock(self) -> AsyncGenerator[None, None]:
        try:
            descriptor = os.open(self.home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self.home, error) from None
        deadline = time.monotonic() + _LOCK_WAIT_S
        try:
            while not _locked(descriptor):
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"Another process has held {self.home / LOCK} for {_LOCK_WAIT_S:.0f} s: "
                        f"see {self.log}"
                    )
                await asyncio.sleep(_POLL_S)
            yield
        finally:
            os.close(descriptor)

    async def _start(self) -> None:
        """Start it; one that somebody kills meanwhile is started again, one that fails is not."""
        deadline = time.monotonic() + _START_WAIT_S
        while True:
            try:
                await self._start_once(deadline)
            except _Killed:
                if time.monotonic() > deadline:
                    raise
            else:
                return

    async def _start_once(self, deadline: float) -> None:
        try:
            log_begin = self._open_log()
            pid = self._spawn()
        except OSError as error:
            raise _unusable(self.home, error) from None
        while await self.status() != 200:
            ended = _ended(pid)
            if ended is not None and await self.status() is None:
                error = _Killed if ended == _KILLED else Unavailable
                raise error(f"The local server ended while it started ({ended}).\n{self._log_end(log_begin)}")
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"The local server (process {pid}) is not ready after {_START_WAIT_S:.0f} s.\n"
                    + self._log_end(log_begin)
                )
            await asyncio.sleep(_POLL_S)
        self._started = True

    def _open_log(self) -> int:
        """Make the log's folder; returns where new lines will begin."""
        self.log.parent.mkdir(mode=0o700, exist_ok=True)
        return self.log.stat().st_size if self.log.exists() else 0

    def _spawn(self) -> int:
        """The server in a session of its own, so that a lost terminal does not reach it.

        posix_spawn and not subprocess, since nobody waits for it: it outlives this process. ``-P``
        keeps the current directory out of the server's import path.
        """
        _reap()
        home = os.fspath(self.home)
        argv = [sys.executable, "-P", "-m", "towline.launch", "server", "--home", home]
        append = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        pid = os.posix_spawn(
            sys.executable,
            argv,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.fspath(self.log), append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        _children.add(pid)
        return pid

    def _log_end(self, begin: int) -> str:
        try:
            with self.log.open("rb") as file:
                file.seek(begin)
                text = file.read()[-16_384:].decode(errors="replace")
        except OSError as error:
            return f"Its log {self.log} cannot be read: {error.strerror}."
        last = text.splitlines()[-_LOG_LINES:]
        space = _space(self.home)
        if not last:
            return f"{space}It wrote nothing to {self.log}."
        return "\n".join([f"{space}The last lines of {self.log}:", *(f"  {line}" for line in last)])


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _ended(pid: int) -> str | None:
    """How our child ended, in words; None while it runs."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # somebody else in this process waits for children
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return "its exit status is not known"
        return None
    if found == 0:
        return None
    _children.discard(pid)
    code = os.waitstatus_to_exitcode(status)
    return f"exit status {code}" if code >= 0 else f"signal {-code}"


def _reap() -> None:
    """Leave no zombies of servers that a long-lived program has started and that have ended."""
    for pid in tuple(_children):
        if _ended(pid) is not None:
            _children.discard(pid)
