"""The cluster's certificate authority: made at the first start, and kept in the vault.

Every server of a store has the same one, so a node or a client that trusts it trusts them all. A
server's own key is made at its start and kept nowhere: its certificate is signed anew each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence

from towline.errors import NotFound
from towline.identity.certificates import (
    Pair,
    fingerprint,
    make_authority,
    make_key,
    make_request,
    sign_node,
    sign_server,
)
from towline.server.vault import Vault

KIND, NAME = "authority", "towline"
AUTHORITY_DAYS = 3650
SERVER_DAYS = 90
NODE_DAYS = 30
MAKING_S, MAKING_LOOK_S = 10.0, 0.1


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Authority:
    """Signs for one cluster. ``clock`` tells the time in UTC."""

    def __init__(self, pair: Pair, clock: Callable[[], datetime.datetime] = utc_now) -> None:
        self._pair = pair
        self._clock = clock

    @property
    def certificate(self) -> bytes:
        """PEM."""
        return self._pair.certificate

    @property
    def fingerprint(self) -> str:
        return fingerprint(self._pair.certificate)

    def server(self, names: Sequence[str]) -> Pair:
        """A new key with a certificate for these host names and addresses."""
        key = make_key()
        return Pair(key=key, certificate=sign_server(self._pair, key, names, SERVER_DAYS, self._clock()))

    def peer(self, name: str) -> Pair:
        """A new key with a certificate that shows a server to another one."""
        key = make_key()
        certificate = sign_node(self._pair, make_request(key, name), name, SERVER_DAYS, self._clock())
        return Pair(key=key, certificate=certificate)

    def node(self, request: bytes, node: str) -> tuple[bytes, int]:
        """(a node's certificate, its end in unix ms). Raises RequestError for a wrong request."""
        now = self._clock()
        end = now + datetime.timedelta(days=NODE_DAYS)
        return sign_node(self._pair, request, node, NODE_DAYS, now), int(end.timestamp() * 1000)


async def open_authority(
    vault: Vault,
    clock: Callable[[], datetime.datetime] = utc_now,
    is_first: Callable[[], Awaitable[bool]] | None = None,
) -> Authority:
    """That of the vault's store, made where there is none. ``is_first``: of several servers that find none,
    whether this one is to make it. Raises VaultError."""
    try:
        kept = await vault.get("", KIND, NAME)
    except NotFound:
        made = None if is_first is None or await is_first() else await _made_elsewhere(vault)
        if made is None:
            pair = make_authority(f"Towline authority of {socket.gethostname()}", AUTHORITY_DAYS, clock())
            made = pair.certificate + pair.key
            if not await vault.add("", KIND, NAME, made):
                made = await vault.get("", KIND, NAME)  # another server was quicker: there is one for all
        kept = made
    certificate, begin, key = kept.partition(b"-----BEGIN PRIVATE KEY-----")
    return Authority(Pair(key=begin + key, certificate=certificate), clock)


async def _made_elsewhere(vault: Vault) -> bytes | None:
    """Wait for the server that makes it; None where that has died over it."""
    for _ in range(round(MAKING_S / MAKING_LOOK_S)):
        with contextlib.suppress(NotFound):
            return await vault.get("", KIND, NAME)
        await asyncio.sleep(MAKING_LOOK_S)
    return None


def own_names(listen_host: str, configured: Sequence[str]) -> list[str]:
    """What a server that listens on a host's address is called: the configured names first."""
    machine = socket.gethostname()
    names = [*configured, machine, socket.getfqdn(), "localhost", "127.0.0.1", "::1"]
    try:
        address = ipaddress.ip_address(listen_host)
    except ValueError:
        names.insert(0, listen_host)
    else:
        names += _addresses(machine) if address.is_unspecified else [str(address)]
    return list(dict.fromkeys(name for name in names if name))


def _addresses(machine: str) -> list[str]:
    """Addresses of this machine, as far as its own name and its way out tell them."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        found += [str(info[4][0]) for info in socket.getaddrinfo(machine, None, type=socket.SOCK_STREAM)]
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((target, 9))  # sends nothing: it asks for the route
                found.append(str(probe.getsockname()[0]))
            except OSError:
                continue
    return [name for name in found if not ipaddress.ip_address(name.partition("%")[0]).is_link_local]
