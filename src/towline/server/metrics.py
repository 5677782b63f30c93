"""What a server measures of itself, for Prometheus: ``GET /metrics``.

Counters and histograms are fed by what the leader commits; queues, nodes and links are read when they
are asked for. Names begin with ``towline_``; times are in seconds.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from towline.build import build
from towline.core.commands import Order
from towline.core.pool import Pool
from towline.core.rows import Changes, EventRow, PoolSnapshot
from towline.errors import TowlineError
from towline.server.leader.loop import Audience

_QUICK_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_LONG_S = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 6 * 3600, 24 * 3600)


class Metrics:
    """What one server measures, of all pools together: ``of`` one of them is what its leader feeds."""

    CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(namespace="towline_server", registry=self.registry)
        named = {"registry": self.registry, "labelnames": ("pool",)}
        self.passes = Histogram("towline_pass_seconds", "Scheduling passes", buckets=_QUICK_S, **named)
        self.commits = Histogram(
            "towline_commit_seconds", "Commits of the leader, full sync included", buckets=_QUICK_S, **named
        )
        self.rows = Counter("towline_committed_events", "Events committed", **named)
        self.takeovers = Counter("towline_takeovers", "Times that this server began to lead", **named)
        self.submitted = Counter("towline_jobs_submitted", "Jobs accepted", **named)
        self.started = Histogram(
            "towline_assigned_to_started_seconds",
            "From the assignment of an attempt to its start: image, mounts, the runtime",
            buckets=_LONG_S,
            **named,
        )
        self.ran = Histogram("towline_attempt_run_seconds", "How long attempts ran", buckets=_LONG_S, **named)
        self.jobs = Counter(
            "towline_jobs_ended", "Jobs that ended", ("pool", "state"), registry=self.registry
        )
        self.attempts = Counter(
            "towline_attempts_ended", "Attempts that ended", ("pool", "reason"), registry=self.registry
        )
        self._standing = Standing()
        self.registry.register(self._standing)

    def of(self, pool: str) -> PoolMetrics:
        return PoolMetrics(self, pool)

    def watch(self, pool: str, opinion: Opinion, term: Callable[[], int], links: Callable[[], int]) -> None:
        """Show from now on what stands in a pool, too."""
        self._standing.add(PoolGauges(pool, opinion, term, links))

    def shown(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)


class PoolMetrics:
    """The measures of one pool's leader."""

    def __init__(self, metrics: Metrics, pool: str) -> None:
        self._pool = pool
        self._passes = metrics.passes.labels(pool)
        self._commits = metrics.commits.labels(pool)
        self._rows = metrics.rows.labels(pool)
        self._takeovers = metrics.takeovers.labels(pool)
        self._submitted = metrics.submitted.labels(pool)
        self._started = metrics.started.labels(pool)
        self._ran = metrics.ran.labels(pool)
        self._jobs, self._attempts = metrics.jobs, metrics.attempts

    # --- the leader's meter -------------------------------------------------------------------------
    def pass_took(self, seconds: float) -> None:
        self._passes.observe(seconds)

    def commit_took(self, seconds: float) -> None:
        self._commits.observe(seconds)

    def led(self) -> None:
        self._takeovers.inc()

    def happened(self, events: list[EventRow]) -> None:
        """Committed events."""
        self._rows.inc(len(events))
        for event in events:
            if event.kind in ("attempt.finished", "attempt.lost"):
                self._attempt_ended(event)
            elif event.kind == "job.submitted":
                self._submitted.inc()
            elif event.kind == "job.ended":
                self._jobs.labels(self._pool, event.data["state"]).inc()

    def _attempt_ended(self, event: EventRow) -> None:
        data = event.data
        self._attempts.labels(self._pool, str(data["reason"])).inc()
        started, finished = data["started_at"], data["finished_at"]
        if started is not None:
            # Both clocks are read: the leader's at the assignment, the node's at the start.
            self._started.observe(max(0, started - data["assigned_at"]) / 1000)
            if finished is not None:
                self._ran.observe(max(0, finished - started) / 1000)

    def between(self, audience: Audience) -> Audience:
        """The leader's audience, with its events counted on their way."""
        return Metered(audience, self)


class Metered:
    """The leader's audience, with its events counted on their way."""

    def __init__(self, audience: Audience, metrics: PoolMetrics) -> None:
        self._audience = audience
        self._metrics = metrics

    def leading(self, term: int, snapshot: PoolSnapshot) -> None:
        self._metrics.led()
        self._audience.leading(term, snapshot)

    def committed(self, changes: Changes, orders: list[Order]) -> None:
        self._audience.committed(changes, orders)
        self._metrics.happened(changes.events)

    def stepped_down(self) -> None:
        self._audience.stepped_down()


Opinion = Callable[[Callable[[Pool], list[GaugeMetricFamily]]], list[GaugeMetricFamily]]


class Standing(Collector):
    """Gauges, read from the pools when they are asked for: one family each, whatever the number of pools."""

    def __init__(self) -> None:
        self._pools: list[PoolGauges] = []

    def add(self, gauges: PoolGauges) -> None:
        self._pools.append(gauges)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        info = GaugeMetricFamily("towline_build_info", "This build", labels=["build"])
        info.add_metric([build()], 1)
        yield info
        families: dict[str, GaugeMetricFamily] = {}
        for gauges in self._pools:
            for family in gauges.collect():
                if family.name in families:
                    families[family.name].samples += family.samples
                else:
                    families[family.name] = family
        yield from families.values()


class PoolGauges:
    """Those of one pool."""

    def __init__(
        self, pool: str, opinion: Opinion, term: Callable[[], int], links: Callable[[], int]
    ) -> None:
        self._pool = pool
        self._opinion = opinion
        self._term = term
        self._links = links

    def collect(self) -> Iterator[GaugeMetricFamily]:
        pool = self._pool
        yield _one("towline_open_links", "Links of agents", pool, self._links())
        try:
            found = self._opinion(self._of_pool)
        except TowlineError:
            yield _one("towline_leading", "1 while this server leads the pool", pool, 0)
            return
        yield _one("towline_leading", "1 while this server leads the pool", pool, 1)
        yield _one("towline_term", "The term of the leadership", pool, self._term())
        yield from found

    def _of_pool(self, pool: Pool) -> list[GaugeMetricFamily]:
        names = {
            "active": ("towline_queue_active", "Elements that are active"),
            "queued": ("towline_queue_queued", "Elements that could start if there were room"),
            "jobs": ("towline_queue_jobs", "Unfinished jobs"),
            "share": ("towline_queue_share", "The dominant share that is held, 0 to 1"),
            "fair_share": ("towline_queue_fair_share", "The share that the weight would give now"),
        }
        families = {
            name: GaugeMetricFamily(*named, labels=["pool", "queue"]) for name, named in names.items()
        }
        for queue in pool.queues_view():
            for name, family in families.items():
                family.add_metric([self._pool, queue.name], getattr(queue, name))
        return [*families.values(), *self._nodes(pool)]

    def _nodes(self, pool: Pool) -> list[GaugeMetricFamily]:
        views = pool.nodes_view()
        nodes = GaugeMetricFamily("towline_nodes", "Nodes by state", labels=["pool", "state"])
        counts = Counts(view.state for view in views)
        for state in ("ready", "draining", "disconnected", "lost"):
            nodes.add_metric([self._pool, state], counts[state])
        ready = [view for view in views if view.state == "ready"]
        amounts = {
            "towline_cpus": ("CPUs of ready nodes", sum(view.cpu for view in ready)),
            "towline_cpus_free": ("CPUs of ready nodes that are free", sum(view.cpu_free for view in ready)),
            "towline_memory_bytes": ("Memory of ready nodes", sum(view.memory_bytes for view in ready)),
            "towline_memory_free_bytes": (
                "Memory of ready nodes that is free",
                sum(view.memory_free_bytes for view in ready),
            ),
        }
        return [nodes, *(_one(name, text, self._pool, value) for name, (text, value) in amounts.items())]


def _one(name: str, text: str, pool: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["pool"])
    family.add_metric([pool], value)
    return family
