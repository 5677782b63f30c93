"""What may be told of requests that nobody known has sent: a bounded number of rows in each window of time.

The first ones of an address are told one by one, so that a mistake is seen as it is; the rest is
counted, and told by one row an address when the window ends. Of addresses there are many, and of IPv6
ones anybody has as many as he likes: a /64 network counts as one, and those beyond a bound share a row.
"""

from __future__ import annotations

import ipaddress

WINDOW_S = 60
PER_ADDRESS = 10
IN_ALL = 100
"""Rows in a window that tell of one request each."""
ADDRESSES = 100
"""Addresses in a window that have a count of their own."""
OTHERS = "other addresses"


class Flood:
    """One window: ``told`` for each request, ``counts`` and a new one when it ends."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}
        self._in_all = 0
        self._counts: dict[str, int] = {}

    def told(self, source: str) -> bool:
        """Whether a request from this address gets a row of its own; else it is counted."""
        group = group_of(source)
        if self._in_all < IN_ALL and self._told.get(group, 0) < PER_ADDRESS:
            self._in_all += 1
            self._told[group] = self._told.get(group, 0) + 1
            return True
        if group not in self._counts and len(self._counts) >= ADDRESSES:
            group = OTHERS
        self._counts[group] = self._counts.get(group, 0) + 1
        return False

    @property
    def counts(self) -> list[tuple[str, int]]:
        """(address or network, how many were counted), in the order of their first one."""
        return list(self._counts.items())


def group_of(source: str) -> str:
    """What counts as one address."""
    try:
        found = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return source
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return source
