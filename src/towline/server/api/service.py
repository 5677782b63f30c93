"""What the API's handlers work with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from litestar.connection import ASGIConnection

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
from towline.server.settings import Settings
from towline.server.vault import Vault
from towline.server.vault.logins import Logins
from towline.server.vault.secrets import Secrets
from towline.store.port import Store

if TYPE_CHECKING:
    from towline.logs.archive import Archive
    from towline.server.access.cluster import Access
    from towline.server.artifacts.keeping import Keeping
    from towline.server.metrics import Metrics
    from towline.server.peers.joined import Joined


MOST = 2**53
"""Of a number in a query: beyond it JSON's readers round, and far beyond it the store has no room."""


@dataclass(frozen=True)
class Service:
    """The parts of one server. ``stop`` asks the process to end cleanly."""

    settings: Settings
    store: Store
    leader: Leader
    gateway: Gateway
    feed: Feed
    facts: Facts
    intake: Intake
    vault: Vault
    logins: Logins
    secrets: Secrets
    retention: Retention
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
            intake=self.intake.within(namespace),
            secrets=self.secrets.within(namespace),
        )

    @property
    def rights(self) -> Rights:
        return Rights(self.store, self.facts)

    @property
    def retrier(self) -> Retrier:
        kept_s = self.settings.retention_days * 86_400
        return Retrier(self.store, self.leader, self.settings.pool, kept_s)


def service_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Service:
    """As the request's namespace has it."""
    service: Service = connection.app.state["service"]
    return service.within(namespace_of(connection))
