"""Connections to the database: at most ten a server, some of them for leaders only.

A connection that failed is closed and never used again; so is one that was in use when its user was
cancelled. What is idle is used again, the latest first, so that prepared statements are found there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from towline.errors import StoreError, TowlineError, WrongStore
from towline.store.address import Address
from towline.store.postgresql.errors import EXPECTED, explain, is_lost, is_unstorable, moved

LEADERS, LEASES, OTHERS = 3, 1, 6
"""Connections for commits and terms, for leases, and for everything else."""
CONNECT_S = 3.0
COMMAND_S, COMMIT_S = 30.0, 10.0
"""A command that takes longer has failed, also where the network swallows what is sent: of a leader's commits
sooner, for which others wait, and of leases (see ``lease_command_s``)."""
LEASE_SHARE, LEASE_COMMAND_LEAST_S = 0.4, 1.0

_CLOSE_S = 10.0

SESSION = {
    "application_name": "towline",
    "client_encoding": "UTF8",
    "default_transaction_isolation": "read committed",
    # A server that is frozen or cut off keeps no lock from its successor: nothing of ours is open for
    # longer, and the database looks whether the other end of the connection is there still.
    "idle_in_transaction_session_timeout": "5s",
    "statement_timeout": "25s",
    "lock_timeout": "10s",
    "client_connection_check_interval": "1s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10s",
    # Statements here are short and their plans simple: to compile them takes longer than to run them.
    "jit": "off",
}

_CHECK = """
SELECT current_setting('server_encoding'), current_setting('fsync'),
  CASE WHEN current_setting('synchronous_commit') IN ('on', 'remote_apply') THEN 'on'
       ELSE set_config('synchronous_commit', 'on', false) END,
  current_setting('server_version_num')::int
"""
_OLDEST = 140_000

Driver = Any
"""A connection of asyncpg, which ships no types."""
_connected = cast("Callable[..., Any]", asyncpg.connect)  # pyright: ignore[reportUnknownMemberType]


def lease_command_s(lease_ms: int) -> float:
    """How long a command for leases of this length may take, and a new connection for them: one that hangs
    leaves a holder time enough to ask once more before its lease ends. No database has less than a second."""
    return min(COMMIT_S, max(LEASE_COMMAND_LEAST_S, LEASE_SHARE * lease_ms / 1000))


class Lane:
    """Connections for one purpose: at most ``most`` at a time, each command at most ``command_s``."""

    def __init__(self, address: Address, most: int, command_s: float = COMMAND_S) -> None:
        self._address = address
        self.command_s = command_s
        self._connect_s = min(CONNECT_S, command_s)
        self._free = asyncio.Semaphore(most)
        self._most = most
        self._idle: list[Driver] = []
        self._used: set[Driver] = set()
        self._closed = False

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._idle) + len(self._used)

    @asynccontextmanager
    async def take(self) -> AsyncGenerator[Driver]:
        """A connection, for as long as the block runs. Raises StoreError; what the driver raises in
        the block goes through."""
        await self._wait()
        try:
            connection = self._from_idle() or await self._connect()
            self._used.add(connection)
            try:
                yield connection
            except (asyncpg.PostgresError, TowlineError) as error:
                self._after(connection, error)
                raise
            except BaseException as error:
                self._end(connection)
                if is_lost(error):
                    self.drop_idle()
                raise
            else:
                self._keep(connection)
        finally:
            self._free.release()

    async def _wait(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")
        try:
            async with asyncio.timeout(self.command_s):
                await self._free.acquire()
        except TimeoutError:
            raise StoreError(
                f"{self._address}: all {self._most} connections of this server for this were busy for "
                f"{self.command_s:g} s: the database is too slow, or does not answer"
            ) from None

    def _from_idle(self) -> Driver | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    async def _connect(self) -> Driver:
        try:
            return await connect(self._address, self.command_s, connect_s=self._connect_s)
        except EXPECTED as error:
            raise explain(self._address, error) from None

    def _after(self, connection: Driver, error: BaseException) -> None:
        """A refused statement leaves a connection as good as it was, unless a transaction is open."""
        if is_lost(error) or moved(error) or connection.is_closed() or connection.is_in_transaction():
            self._end(connection)
        else:
            self._keep(connection)
        if moved(error):
            self.drop_idle()

    def _keep(self, connection: Driver) -> None:
        self._used.discard(connection)
        if not connection.is_closed():
            self._idle.append(connection)

    def _end(self, connection: Driver) -> None:
        self._used.discard(connection)
        connection.terminate()

    def drop_idle(self) -> None:
        """Where one was found to be of no use, the others lead to the same place."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.terminate()

    async def close(self) -> None:
        """Wait a while for what was handed over, then close all."""
        self._closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                for _ in range(self._most):
                    await self._free.acquire()
        for connection in self._used:
            connection.terminate()
        idle, self._idle = self._idle, []
        for connection in idle:
            with suppress(*EXPECTED):
                await connection.close(timeout=CONNECT_S)


class Connections:
    """A server's: ``leaders`` for commits and terms, ``leases``, which last ``lease_ms``, and ``others``."""

    def __init__(self, address: Address, lease_ms: int) -> None:
        self.leaders = Lane(address, LEADERS)
        self.leases = Lane(address, LEASES, lease_command_s(lease_ms))
        self.others = Lane(address, OTHERS)

    @property
    def lanes(self) -> Sequence[Lane]:
        return self.leaders, self.leases, self.others

    async def reserve(self) -> None:
        """Connect for a leader and for leases. Raises StoreError."""
        for lane in (self.leaders, self.leases):
            async with lane.take():
                pass

    async def close(self) -> None:
        await asyncio.gather(*(lane.close() for lane in self.lanes))


async def connect(
    address: Address,
    command_s: float | None = None,
    session: Mapping[str, str] = SESSION,
    connect_s: float = CONNECT_S,
) -> Driver:
    """A new connection to the server that takes writes, with the settings ``session``, and checked; each host
    has ``connect_s`` to take it. Raises what the driver raises, and StoreError for a server that does not
    keep what it has confirmed, WrongStore for a URL with which no connection can be made."""
    *before, last = address.urls
    for url in before:
        # Each host has its own time: one that swallows everything takes none from the next.
        with suppress(*EXPECTED):
            return await _connect(address, url, command_s, session, connect_s)
    return await _connect(address, last, command_s, session, connect_s)


async def _connect(
    address: Address, url: str, command_s: float | None, session: Mapping[str, str], connect_s: float
) -> Driver:
    connection: Driver = await _opened(
        address,
        url,
        timeout=connect_s,
        command_timeout=command_s,
        # For good: what is used often is prepared once in a connection's life.
        statement_cache_size=300,
        max_cached_statement_lifetime=0,
        max_cacheable_statement_size=0,
        server_settings=dict(session),
        target_session_attrs="read-write",
    )
    try:
        encoding, fsync, _, version = await connection.fetchrow(_CHECK)
        _check(address, encoding, fsync, version)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def _opened(address: Address, url: str, **options: Any) -> Driver:
    try:
        return await _connected(url, **options)
    except Exception as error:
        if not is_unstorable(error):
            raise
        # There is no value but those of the URL and its parameters yet.
        said = address.without_secrets(str(error))
        raise WrongStore(f"{address}: store_url cannot be used: {said}") from None


def _check(address: Address, encoding: str, fsync: str, version: int) -> None:
    if version < _OLDEST:
        raise StoreError(
            f"{address}: PostgreSQL {version // 10_000} is too old: version 14 or newer is needed"
        )
    if encoding != "UTF8":
        raise StoreError(
            f"{address}: the database keeps text as {encoding}: make one with createdb --encoding UTF8 "
            "--template template0"
        )
    if fsync != "on":
        raise StoreError(
            f"{address}: PostgreSQL runs with fsync = off and may lose what it has confirmed: set it to on"
        )
