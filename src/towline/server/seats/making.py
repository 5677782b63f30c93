"""Makes the seat of a pool, out of what all pools of a server have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec import structs

from towline.server.events import Feed
from towline.server.facts import Facts
from towline.server.gateway import Gateway
from towline.server.intake import Intake
from towline.server.leader import InHand, Leader, in_hand_path
from towline.server.leader.clock import Clock
from towline.server.leader.rules import rules_maker
from towline.server.logs.own_node import OwnNode
from towline.server.logs.receiving import Receiving
from towline.server.logs.retention import Retention
from towline.server.peers.held import Newest
from towline.server.seats.seat import Seat
from towline.server.seats.seats import Seats
from towline.server.settings import Settings
from towline.server.vault.logins import Logins
from towline.server.vault.secrets import Secrets
from towline.store.port import Store

if TYPE_CHECKING:
    from towline.server.access.cluster import Access
    from towline.server.artifacts.keeping import Keeping
    from towline.server.metrics import Metrics
    from towline.server.peers.joined import Joined


@dataclass(kw_only=True)
class Making:
    """``settings`` name the home's pool. ``intake`` makes that of a pool, from its settings and leader."""

    settings: Settings
    store: Store
    facts: Facts
    logins: Logins
    secrets: Secrets
    intake: Callable[[Settings, Leader], Intake]
    access: Access | None
    receiving: Receiving | None
    keeping: Keeping | None
    joined: Joined | None
    metrics: Metrics | None
    seats: Seats | None = None
    """All of them; set once the first is there."""

    def __post_init__(self) -> None:
        self.held = None if self.joined is None else self.joined.hold(self._reloads())
        """What other servers may change of what belongs to no pool."""
        self.catch_up = None if self.held is None else Newest(self.held.load).catch_up
        """Reads it anew where somebody or something is not known."""

    def pools(self) -> Sequence[str]:
        """The names of all."""
        return [self.settings.pool] if self.seats is None else self.seats.names()

    def seat(self, pool: str) -> Seat:
        """A leader, with all that goes with it."""
        settings, joined = structs.replace(self.settings, pool=pool), self.joined
        is_home = pool == self.settings.pool
        in_hand = InHand(in_hand_path(settings.home, "" if is_home else pool))
        feed = Feed(pool, self.store, settings.event_tail)
        peers = None if joined is None else joined.of(pool)
        login_for, values_for = self.logins.login_for, self.secrets.values_for
        gateway = Gateway(feed, settings, login_for, values_for, self.receiving, peers)
        leader = self._leader(settings, in_hand, gateway)
        gateway.attach(leader)
        if self.metrics is not None:
            self.metrics.watch(pool, leader.opinion, lambda: leader.term, lambda: gateway.open_links)
        return Seat(
            settings=settings,
            leader=leader,
            gateway=gateway,
            feed=feed,
            intake=self.intake(settings, leader),
            retention=self._retention(settings),
            in_hand=in_hand,
            deliver=self._deliver(settings, feed),
            following=None if joined is None else joined.follow(feed, self.held if is_home else None),
        )

    def _leader(self, settings: Settings, in_hand: InHand, gateway: Gateway) -> Leader:
        metrics = None if self.metrics is None else self.metrics.of(settings.pool)
        audience = gateway if metrics is None else metrics.between(gateway)
        lease = None if self.joined is None else self.joined.lease(settings.pool)
        rules = rules_maker(*settings.rules)
        first = None if self.held is None else self.held.before_leading
        return Leader(self.store, Clock(), settings, in_hand, audience, rules, metrics, lease, first)

    def _retention(self, settings: Settings) -> Retention:
        """Output and artifacts are with the server, or on one machine in the folder of its node."""
        archive = None if self.receiving is None else self.receiving.archive
        own_node = OwnNode(settings.home / "node") if archive is None else None
        kept = settings.retention
        return Retention(self.store, archive, settings.pool, *kept, keeping=self.keeping, own_node=own_node)

    def _deliver(self, settings: Settings, feed: Feed) -> Callable[[], Coroutine[Any, Any, None]]:
        """Sends webhooks, beginning anew with each leadership."""

        async def deliver() -> None:
            from towline.server.webhooks.delivering import Deliverer

            secret, targets = self.secrets.values_for, settings.targets
            await Deliverer(settings.pool, self.store, feed, self.facts, secret, targets).run()

        return deliver

    def _reloads(self) -> list[Callable[[], Awaitable[None]]]:
        """What of the cluster's is held in memory; then tasks are described with it."""

        async def tell() -> None:
            if self.seats is not None:
                self.seats.descriptions_changed()

        assert self.access is not None
        access = self.access
        return [access.tokens.load, access.enrolments.load, self.logins.load, self.secrets.load, tell]
