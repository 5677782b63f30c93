"""What the API's handlers work with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from litestar.connection import ASGIConnection

from towline.core.rows import JobRow
from towline.errors import Unavailable
from towline.identity.roles import DEFAULT
from towline.server.access.guard import namespace_of
from towline.server.artifacts.rights import Rights
from towline.server.events import Feed
from towline.server.facts import Facts
from towline.server.gateway import Gateway
from towline.server.intake import Intake
from towline.server.leader import Leader
from towline.server.leader.retrying import Retrier
from towline.server.logs.retention import Retention
from towline.server.peers.callers import POOL
from towline.server.seats.asking import Asking
from towline.server.seats.seat import Seat
from towline.server.seats.seats import Seats
from towline.server.settings import Settings
from towline.server.vault import Vault
from towline.server.vault.logins import Logins
from towline.server.vault.secrets import Secrets
from towline.store.port import Store
from towline.wire.pulls import Pull

if TYPE_CHECKING:
    from towline.logs.archive import Archive
    from towline.server.access.cluster import Access
    from towline.server.artifacts.keeping import Keeping
    from towline.server.metrics import Metrics
    from towline.server.peers.joined import Joined


OF_A_POOL = {"pool": "Of this pool; by default of the one that is there from the start"}
"""What a route says of ``?pool=``, which is heeded before it is asked."""
OF_ALL_POOLS = {"pool": "Of this pool; by default of all"}
MOST = 2**53
"""Of a number in a query: beyond it JSON's readers round, and far beyond it the store has no room."""


@dataclass(frozen=True)
class Service:
    """The parts of one server, as a request has them: ``seat`` is that of the request's pool. ``stop`` asks
    the process to end cleanly."""

    seats: Seats
    seat: Seat
    asking: Asking
    store: Store
    facts: Facts
    vault: Vault
    logins: Logins
    secrets: Secrets
    stop: Callable[[], None]
    access: Access | None = None
    """Of a server that others than its own machine reach."""
    archive: Archive | None = None
    """Likewise: the output that nodes have shipped."""
    keeping: Keeping | None = None
    """Likewise: what elements have written."""
    metrics: Metrics | None = None
    """Likewise."""
    joined: Joined | None = None
    """Of a server that shares its store with others."""

    since_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    """When the server started."""

    namespace: str = DEFAULT
    """Where the request works: facts, intake and secrets are of it."""

    def within(self, namespace: str) -> Service:
        """The same for requests of another namespace."""
        if namespace == self.namespace:
            return self
        return replace(
            self,
            namespace=namespace,
            facts=self.facts.within(namespace),
            secrets=self.secrets.within(namespace),
        )

    def on(self, pool: str | None) -> Service:
        """The same for requests about another pool; None: about none. Raises Unavailable for one that this
        server has not heard of."""
        if pool is None or pool == self.seat.pool:
            return self
        seat = self.seats.get(pool)
        if seat is None:
            raise Unavailable(f"The pool {pool} has just been made: repeat the request.")
        return replace(self, seat=seat)

    async def find(self, job: str) -> JobRow:
        """The job that is meant, whose pool the request is about. Raises NotFound, and Unavailable where a
        job of that name has come in another pool since the request's was found."""
        row = await self.facts.find(job)
        if row.pool != self.pool:
            raise Unavailable(f"There is a new job {job[:100]!r} in the pool {row.pool}: repeat the request.")
        return row

    @property
    def settings(self) -> Settings:
        return self.seat.settings

    @property
    def pool(self) -> str:
        return self.seat.pool

    @property
    def leader(self) -> Leader:
        return self.seat.leader

    @property
    def gateway(self) -> Gateway:
        return self.seat.gateway

    @property
    def feed(self) -> Feed:
        return self.seat.feed

    @property
    def intake(self) -> Intake:
        return self.seat.intake.within(self.namespace)

    @property
    def retention(self) -> Retention:
        return self.seat.retention

    def pulls(self) -> list[tuple[str, str, Pull]]:
        """(node's id, its name, pull) of every image that a node of a pool led here is getting."""
        return [one for seat in self.seats for one in seat.gateway.pulls()]

    @property
    def rights(self) -> Rights:
        return Rights(self.store, self.facts)

    @property
    def retrier(self) -> Retrier:
        kept_s = self.settings.retention_days * 86_400
        return Retrier(self.store, self.leader, self.pool, kept_s)


def service_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Service:
    """As the request's pool and namespace have it. Raises Unavailable, Forbidden, RequestError."""
    service: Service = connection.app.state["service"]
    return service.on(connection.scope["state"].get(POOL)).within(namespace_of(connection))
