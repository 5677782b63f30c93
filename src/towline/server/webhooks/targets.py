"""Where webhooks may go: what a job's author may have this machine connect to.

Without a list of targets: everywhere over https but to addresses that are not of the public internet.
With one: only there, also over http. A name on the list may stand for private addresses; loopback,
link-local and the like only go where the list has the address itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from towline.errors import InvalidDocument, Problem
from towline.model.job import JobSpec

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_SHARED = ipaddress.ip_network("100.64.0.0/10")
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")


class Refused(Exception):
    """A target is not allowed: trying again is of no use."""


class NotTaken(Exception):
    """A receiver cannot be reached, or has not answered with 2xx."""


class Targets:
    """``listed``: host names, ``*.`` and a name (all below it), addresses and networks. Raises ValueError."""

    def __init__(self, listed: Sequence[str] = ()) -> None:
        self._listed = bool(listed)
        self._names: set[str] = set()
        self._below: list[str] = []
        self._networks: list[Network] = []
        for entry in listed:
            self._add(entry.strip().lower().rstrip("."))

    def _add(self, entry: str) -> None:
        try:
            self._networks.append(ipaddress.ip_network(entry, strict=False))
            return
        except ValueError:
            name = entry.removeprefix("*.")
        if not name or not all(part.replace("-", "").replace("_", "").isalnum() for part in name.split(".")):
            raise ValueError(
                f"webhook_targets has {entry!r}: write a host name, *.NAME, an address or a network"
            )
        if name == entry:
            self._names.add(name)
        else:
            self._below.append(f".{name}")

    def refusal_of_url(self, url: str) -> str | None:
        """Why no webhook may go to an URL, whatever its host's addresses are."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        address = _address(host)
        if parts.scheme == "http" and not self._listed:
            return "it is not https, and goes to no host that webhook_targets in server.toml lists"
        if self._listed and address is None and not self._networks and not self._is_named(host):
            return f"{host} is not in webhook_targets of server.toml"
        return None if address is None else self.refusal_of_address(host, address)

    def refusal_of_address(self, host: str, address: Address) -> str | None:
        """Why an address of this host may not be connected to."""
        address = _plain(address)
        if self._is_in(address):
            return None
        if self._listed and not self._is_named(host):
            return f"{address} is not in webhook_targets of server.toml"
        if not _reaches_a_host(address):
            return f"{address} is an address of this machine or of no host: webhook_targets has to list it"
        if not _is_public(address) and not self._is_named(host):
            return f"{address} is private: webhook_targets in server.toml has to list it"
        return None

    def _is_named(self, host: str) -> bool:
        host = host.lower().rstrip(".")
        return host in self._names or host.endswith(tuple(self._below))

    def _is_in(self, address: Address) -> bool:
        address = _plain(address)
        return any(address in network for network in self._networks if network.version == address.version)


def check_targets(spec: JobSpec, targets: Targets) -> None:
    """Raises InvalidDocument where a webhook of a job may not be sent anywhere near its URL."""
    problems: list[Problem] = []
    for at, notice in enumerate(spec.notify):
        refusal = targets.refusal_of_url(notice.webhook)
        if refusal is not None:
            problems.append(Problem(f"notify[{at}].webhook", refusal, "an operator of the server sets it"))
    if problems:
        raise InvalidDocument(problems)


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _plain(address: Address) -> Address:
    """What an address that stands for an IPv4 one leads to."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _TRANSLATED:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _reaches_a_host(address: Address) -> bool:
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
    )


def _is_public(address: Address) -> bool:
    return address.is_global and not (address.version == 4 and address in _SHARED)
