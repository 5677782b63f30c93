"""Machines on a bridge: network namespaces of this machine that reach each other over it. For root.

What is made is written down first, a line each, so that whoever comes later can take it away.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import subprocess
from pathlib import Path

from towline.errors import OperatorError

NETWORK = "network"
"""The file in a cluster's folder that names what was made."""
_CANDIDATES = ipaddress.ip_network("10.213.0.0/16")
_FIRST_MACHINE = 10


class Network:
    """A bridge in namespace ``hub`` (None: this machine's own network), and namespaces on it. ``prefix``
    begins all names (at most 11 characters); ``file`` is where they are written down.

    Methods raise OperatorError with what the kernel or ``ip`` has said.
    """

    def __init__(
        self, prefix: str, file: Path, subnet: ipaddress.IPv4Network, hub: str | None = None
    ) -> None:
        self._prefix = prefix
        self._file = file
        self._subnet = subnet
        self.hub = f"{prefix}{hub}" if hub is not None else None
        self._machines = 0
        self._addresses: dict[str, str] = {}
        self.address = str(subnet[1])
        """Of the bridge, which is where the server listens."""

    def open(self) -> None:
        if self.hub is not None:
            self._space(self.hub)
        bridge = f"{self._prefix}b"
        self._note("link", bridge)
        self._ip_hub("link", "add", bridge, "type", "bridge")
        self._ip_hub("addr", "add", f"{self.address}/{self._subnet.prefixlen}", "dev", bridge)
        self._ip_hub("link", "set", bridge, "up")

    def add(self) -> str:
        """One more machine; returns its namespace."""
        self._machines += 1
        at = self._machines
        space, inner, outer = f"{self._prefix}{at}", f"n{at}", f"{self._prefix}h{at}"
        self._space(space)
        self._note("link", outer)
        self._ip_hub("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", space)
        self._ip_hub("link", "set", outer, "master", f"{self._prefix}b", "up")
        self._addresses[space] = str(self._subnet[_FIRST_MACHINE + at])
        address = f"{self._addresses[space]}/{self._subnet.prefixlen}"
        _ip("-n", space, "addr", "add", address, "dev", inner)
        _ip("-n", space, "link", "set", inner, "up")
        return space

    def address_of(self, space: str) -> str:
        """Of a machine on the bridge."""
        return self._addresses[space]

    def _space(self, space: str) -> None:
        self._note("netns", space)
        _ip("netns", "add", space)
        _ip("-n", space, "link", "set", "lo", "up")

    def _ip_hub(self, *words: str) -> None:
        _ip(*(["-n", self.hub] if self.hub is not None else []), *words)

    def _note(self, kind: str, name: str) -> None:
        with self._file.open("a") as file:
            file.write(f"{kind} {name}\n")


def entered(space: str | None) -> list[str]:
    """The beginning of a command that runs in a network namespace, and elsewhere as we do."""
    return [] if space is None else ["nsenter", f"--net=/run/netns/{space}", "--"]


def remove_network(file: Path) -> None:
    """Take away what a file names, as far as it is still there. A namespace goes once nobody is in it."""
    with contextlib.suppress(FileNotFoundError):
        for line in file.read_text().splitlines():
            kind, _, name = line.partition(" ")
            words = ("netns", "del") if kind == "netns" else ("link", "del")
            subprocess.run(["ip", *words, name], check=False, capture_output=True)


def free_subnet() -> ipaddress.IPv4Network:
    """A network of 254 addresses to which this machine has no route yet. Raises OperatorError."""
    try:
        shown = _ip("-j", "-4", "route", "show", "table", "all")
        taken = [ipaddress.ip_network(route["dst"]) for route in json.loads(shown) if _is_network(route)]
    except (ValueError, KeyError) as error:
        raise OperatorError(f"`ip route` cannot be read: {error}") from None
    for candidate in _CANDIDATES.subnets(new_prefix=24):
        if not any(candidate.overlaps(each) for each in taken if isinstance(each, ipaddress.IPv4Network)):
            return candidate
    raise OperatorError(f"there is no free network of 254 addresses in {_CANDIDATES}")


def _is_network(route: dict[str, object]) -> bool:
    return str(route.get("dst", "default"))[:1].isdigit()


def _ip(*words: str) -> str:
    try:
        done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    except OSError as error:
        raise OperatorError(f"`ip` cannot be run ({error.strerror}): install iproute2") from None
    if done.returncode != 0:
        raise OperatorError(f"`ip {' '.join(words)}` failed: {done.stderr.strip()}")
    return done.stdout
