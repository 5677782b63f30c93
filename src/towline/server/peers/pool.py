"""What a server knows of one pool that it shares with others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.coordination.storelease import Leases
from towline.core.leadership import PoolLease, ServerRow
from towline.model.units import rfc3339

if TYPE_CHECKING:
    from towline.model.views import PoolView


def url(address: str) -> str:
    """Of a server, by its HOST:PORT."""
    return f"https://{address}"


class PoolPeers:
    """As the leases were seen last. ``own_address`` is this server's, where it tells of itself."""

    def __init__(self, leases: Leases, pool: str, own_address: str | None = None) -> None:
        self._leases = leases
        self._pool = pool
        self._first = [] if own_address is None else [own_address]

    def urls(self) -> tuple[str, ...]:
        """Of the servers that are up, this one first."""
        others = [peer.row.address for peer in self._leases.peers() if peer.live]
        return tuple(url(address) for address in dict.fromkeys([*self._first, *others]))

    def leader(self) -> tuple[str, int]:
        """(the leader's URL, its term); empty where there is none but this one, or none at all."""
        found = self._leases.leader_of(self._pool)
        if found is None or found.id == self._leases.id:
            return "", 0
        return url(found.address), self.term

    def no_leader_ms(self) -> int:
        return self._leases.free_in_ms(self._pool)

    async def look(self) -> None:
        """See anew who leads."""
        await self._leases.look()

    @property
    def term(self) -> int:
        row = self._row
        return 0 if row is None else row.term

    @property
    def event_no(self) -> int | None:
        """The number of its newest event; None where it is not known yet."""
        row = self._row
        return None if row is None else row.event_no

    @property
    def _row(self) -> PoolLease | None:
        return next((row for row in self._leases.pools() if row.pool == self._pool), None)

    def led_by(self) -> ServerRow | None:
        return self._leases.leader_of(self._pool)

    def show(self, view: PoolView) -> None:
        """Put into ``view`` who leads."""
        leader, row = self.led_by(), self._row
        if leader is not None and row is not None:
            view.leader, view.address = leader.name, leader.address
            view.term, view.since = row.term, rfc3339(row.lease.taken_at)
