"""How many connections a listener takes: so many of callers, of which one address gets no more than half,
and of each node's certificate a few, so that callers can never keep nodes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from towline.server.peers.callers import PER_SERVER, is_server

PER_CERTIFICATE = 16


class Places:
    """``most`` is for connections without a certificate."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._per_address = max(1, most // 2)
        self._held: dict[Hashable, str | bytes] = {}
        """By connection, the address, or the certificate that it has shown."""
        self._count: Counter[str | bytes] = Counter()
        self._callers = 0

    def take(self, connection: Hashable, address: str, certificate: bytes | None) -> bool:
        """Whether there is room for it; then it is counted until it leaves."""
        who = address if certificate is None else certificate
        limit = self._per_address if certificate is None else PER_CERTIFICATE
        if certificate is not None and self._count[who] >= limit and is_server(certificate):
            limit = PER_SERVER
        if self._count[who] >= limit or (certificate is None and self._callers >= self._most):
            return False
        self._held[connection] = who
        self._count[who] += 1
        self._callers += certificate is None
        return True

    def leave(self, connection: Hashable) -> None:
        """One that has no place, or has left, is left alone."""
        who = self._held.pop(connection, None)
        if who is None:
            return
        self._callers -= isinstance(who, str)
        self._count[who] -= 1
        if self._count[who] == 0:
            del self._count[who]

    def __len__(self) -> int:
        return len(self._held)
