"""Leases in ZooKeeper: one znode a pool, with the same rules as leases in the store.

A lease is no ephemeral node: whether its holder lives is told by its renewals, which core/leadership.py
counts by one's own clock. A session that expires while its holder sleeps, or one that ZooKeeper keeps for
longer than its holder trusts it, changes nothing then. What ZooKeeper is for is the compare-and-set: a
znode is written only at the version at which it was read. A read may be of a replica that lags; then the
write is refused.

Servers and pools stay rows of the store.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import msgspec

from towline.coordination.storelease import LeaseStore
from towline.core.leadership import NOBODY, LeaseRow, PoolLease, ServerRow
from towline.errors import OperatorError, StoreError

if TYPE_CHECKING:
    from kazoo.client import KazooClient

SCHEME = "zk"
PORT = 2181
EXAMPLE = "zk://HOST1,HOST2,HOST3/towline"
OPEN_S = 15.0
SESSION_S = 10.0
_TRIES = 3
_HOST = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]*)|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")
_FAILURE_DELAY_S, _FAILURE_MAX_DELAY_S = 0.05, 1.0


class Ensemble:
    """``url``: ``zk://[USER:PASSWORD@]HOST[:PORT][,…]/PATH``. Raises ValueError, in words that show no
    password."""

    def __init__(self, url: str) -> None:
        what = f"coordination_url has to be like {EXAMPLE}"
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ValueError(f"{what}: it is no URL") from None
        if parts.scheme != SCHEME:
            raise ValueError(f"{what}: it begins with {repr(parts.scheme) if parts.scheme else 'no scheme'}")
        if "@" in url and "@" not in parts.netloc:
            raise ValueError(f"{what}: escape what is special in its password (/ is %2F)")
        login, _, hosts = parts.netloc.rpartition("@")
        named = hosts.split(",")
        for host in named:
            if not _HOST.match(host):
                raise ValueError(f"{what}: {host!r} is no HOST or HOST:PORT")
        if parts.query or parts.fragment or not parts.path.strip("/"):
            raise ValueError(
                f"{what}: name the path of the cluster's own znodes, such as /towline, and no more"
            )
        user, colon, password = login.partition(":")
        if login and not (user and colon and password):
            raise ValueError(f"{what}: a user needs a password (USER:PASSWORD@)")
        self.hosts = ",".join(host if re.search(r":[0-9]+\Z", host) else f"{host}:{PORT}" for host in named)
        self.path = f"/{parts.path.strip('/')}"
        self.login = (unquote(user), unquote(password)) if login else None

    def __str__(self) -> str:
        """Without a password."""
        return f"{SCHEME}://{f'{self.login[0]}@' if self.login else ''}{self.hosts}{self.path}"


class _Kept(msgspec.Struct, frozen=True):
    """What a znode holds, as JSON."""

    holder: str
    renewals: int
    taken_at: int


class ZooKeeperLeases:
    """A ``LeaseStore``: leases in an ensemble, all else in ``store``. Methods raise StoreError."""

    def __init__(self, ensemble: Ensemble, store: LeaseStore) -> None:
        self._ensemble = ensemble
        self._store = store
        self._client: KazooClient | None = None

    # --- its life -----------------------------------------------------------------------------------
    async def open(self) -> None:
        """Raises OperatorError where the ensemble does not answer, or does not let us in."""
        try:
            from kazoo.client import KazooClient
            from kazoo.exceptions import KazooException
            from kazoo.security import OPEN_ACL_UNSAFE, make_digest_acl
        except ImportError:
            raise OperatorError(
                "coordination_url is set, and the package for ZooKeeper is missing: install "
                "towline[zookeeper]"
            ) from None

        login = self._ensemble.login
        again = {"max_tries": -1, "delay": _FAILURE_DELAY_S, "max_delay": _FAILURE_MAX_DELAY_S}
        client = self._client = KazooClient(
            hosts=self._ensemble.hosts,
            timeout=SESSION_S,
            connection_retry=again,
            auth_data=[("digest", ":".join(login))] if login else None,
            default_acl=[make_digest_acl(*login, all=True)] if login else OPEN_ACL_UNSAFE,
        )
        try:
            await asyncio.to_thread(client.start, OPEN_S)
            await self._ask(client.ensure_path_async, f"{self._ensemble.path}/leases")
        except (KazooException, StoreError, client.handler.timeout_exception) as error:
            await self.close()
            raise OperatorError(
                f"ZooKeeper at {self._ensemble} cannot be used: {_why(error)}. Start it, or correct "
                "coordination_url"
            ) from error

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await asyncio.to_thread(_end, client)

    # --- leases -------------------------------------------------------------------------------------
    async def lease_read(self) -> list[PoolLease]:
        pools = await self._store.lease_read()
        found = await asyncio.gather(*(self._read(row.pool) for row in pools))
        return [row._replace(lease=lease) for row, (lease, _) in zip(pools, found, strict=True)]

    async def lease_take(self, expected: LeaseRow, holder: str, at_ms: int) -> bool:
        lease, version = await self._read(expected.pool)
        if lease.state != expected.state:
            return False
        return await self._write(LeaseRow(lease.pool, holder, lease.renewals + 1, at_ms), version)

    async def lease_renew(self, holder: str, pools: Sequence[str]) -> list[str]:
        renewed = await asyncio.gather(*(self._renew(holder, pool) for pool in pools))
        return sorted(pool for pool, done in zip(pools, renewed, strict=True) if done)

    async def _renew(self, holder: str, pool: str) -> bool:
        """Whether ``holder`` has it, and has renewed it. A read may have been of a replica that lags."""
        for turn in range(_TRIES):
            lease, version = await self._read(pool)
            later = lease._replace(renewals=lease.renewals + 1)
            if lease.holder == holder != NOBODY and await self._write(later, version):
                return True
            if turn + 1 < _TRIES:
                if turn > 0 and lease.holder != holder:
                    return False
                await self._ask(self._opened().sync_async, self._place(pool))
        return False

    # --- znodes -------------------------------------------------------------------------------------
    def _place(self, pool: str) -> str:
        return f"{self._ensemble.path}/leases/{quote(pool, safe='').replace('.', '%2E')}"

    async def _read(self, pool: str) -> tuple[LeaseRow, int]:
        """The lease, and the version of its znode; -1 where there is none yet."""
        from kazoo.exceptions import NoNodeError

        try:
            data, stat = await self._ask(self._opened().get_async, self._place(pool))
            kept = msgspec.json.decode(data, type=_Kept)
        except NoNodeError:
            return LeaseRow(pool), -1
        except msgspec.MsgspecError as error:
            raise StoreError(
                f"{self._ensemble}: the znode {self._place(pool)} is none of Towline's: use another path "
                f"({error})"
            ) from None
        return LeaseRow(pool, kept.holder, kept.renewals, kept.taken_at), stat.version

    async def _write(self, lease: LeaseRow, version: int) -> bool:
        """Whether it was still at this version."""
        from kazoo.exceptions import BadVersionError, NodeExistsError, NoNodeError

        data = msgspec.json.encode(_Kept(lease.holder, lease.renewals, lease.taken_at))
        try:
            if version < 0:
                await self._ask(self._opened().create_async, self._place(lease.pool), data)
            else:
                await self._ask(self._opened().set_async, self._place(lease.pool), data, version)
        except (BadVersionError, NodeExistsError, NoNodeError):
            return False
        return True

    def _opened(self) -> KazooClient:
        if self._client is None:
            raise StoreError("the connection to ZooKeeper is closed")
        return self._client

    async def _ask(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        """The answer to one request. Raises StoreError, and what ZooKeeper refuses of a znode as it is."""
        from kazoo.exceptions import BadVersionError, KazooException, NodeExistsError, NoNodeError

        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def answered(result: Any) -> None:  # in a thread of the client's
            try:
                loop.call_soon_threadsafe(_settle, future, result)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

        try:
            ask(*arguments).rawlink(answered)
            return await future
        except (BadVersionError, NodeExistsError, NoNodeError):
            raise
        except KazooException as error:
            raise StoreError(f"ZooKeeper at {self._ensemble}: {_why(error)}") from error

    # --- what stays in the store --------------------------------------------------------------------
    async def server_put(self, row: ServerRow) -> None:
        await self._store.server_put(row)

    async def server_list(self) -> list[ServerRow]:
        return await self._store.server_list()

    async def server_delete(self, id: str) -> bool:
        return await self._store.server_delete(id)


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():
        return  # the caller has given up; what it asked for may have happened
    if result.exception is not None:
        future.set_exception(result.exception)
    else:
        future.set_result(result.value)


def _end(client: KazooClient) -> None:
    client.stop()
    client.close()


def _why(error: Exception) -> str:
    """Some of the client's errors have no words."""
    words = {
        "ConnectionLoss": "the connection was lost",
        "SessionExpiredError": "the session has expired",
        "NoAuthError": "it refuses this user and password",
        "AuthFailedError": "it refuses this user and password",
        "KazooTimeoutError": f"no server has answered for {OPEN_S:.0f} s",
    }
    return words.get(type(error).__name__) or str(error) or type(error).__name__
