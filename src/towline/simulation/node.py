"""A simulated node: an agent that may die, over a journal and containers that outlive it.

``History`` is what really happened, written by the nodes and never by the pool: the checker
judges by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from towline.core import lease
from towline.core.commands import AttemptUpdate, Order, StartOrder, attempt_id
from towline.core.rows import NodeRow
from towline.simulation.leader import SimLeader
from towline.simulation.world import Link, World

LEASE_MS, GRACE_MS = 20_000, 3_000
SILENCE_MS = 10_000
ENDED = ("finished", "lost")


@dataclass
class History:
    """The truth: when each attempt started and how it ended, by attempt."""

    starts: dict[str, list[int]] = field(default_factory=dict)
    ends: dict[str, tuple[int, int]] = field(default_factory=dict)
    """(time, exit code; -1 where it was stopped)."""
    killed: dict[str, int] = field(default_factory=dict)
    """When those ended that ended with the machine, so that nobody knows how."""


class SimNode:
    """``journal`` survives the agent, ``machine_dies`` takes it."""

    def __init__(
        self, world: World, name: str, cpu_milli: int, history: History, policy: Callable[[str, int], str]
    ) -> None:
        self._world = world
        self._policy = policy
        self._lease = lease.NONE
        self._leased: dict[str, int] = {}
        """The row of leases that each attempt was ordered in, of those that live by it."""
        self._held: set[str] = set()
        self._cuts = 0
        self._heard_ms = 0
        self._history = history
        self._cpu_milli = cpu_milli
        self._link: Link | None = None
        self._leader: SimLeader | None = None
        self._boots = 0
        self.name = name
        self.journal: dict[str, AttemptUpdate] = {}

    # --- the link ---------------------------------------------------------------------------------
    def connect(self, leader: SimLeader) -> None:
        """Open a link and say Hello with everything that the journal holds."""
        self.disconnect()
        self._link, self._leader = Link(self._world, self._held), leader
        self._heard_ms = self._world.now_ms
        row = NodeRow(
            id=self.name,
            name=self.name,
            instance=f"{self.name}-{self._boots}",
            state="ready",
            cpu_milli=self._cpu_milli,
            memory_bytes=2**34,
            pids=10_000,
            labels={},
            runtimes={"process": None, "oci": None},
            protects={"process": (lease.PROTECTION,), "oci": (lease.PROTECTION,)},
        )
        known = tuple(self.journal.values())
        link, sent_ms = self._link, self._world.now_ms
        link.send("up", lambda: leader.hello(self, link, row, known, sent_ms))

    def disconnect(self) -> None:
        """The link breaks: what is under way on it is lost, and the leader notices later."""
        if self._link is not None:
            link, leader = self._link, self._leader
            link.close()
            assert leader is not None
            if "up" not in self._held:
                self._world.after(self._world.random.randint(1, 500), lambda: leader.gone(self, link))
        self._link = self._leader = None

    @property
    def connected(self) -> bool:
        return self._link is not None and self._link.open and self._leader_lives

    @property
    def _leader_lives(self) -> bool:
        """A leader that died before it read the Hello has not closed the link: the kernel does."""
        return self._leader is not None and self._leader.alive

    def beat(self) -> None:
        """A heartbeat, and a repetition of every end that was not acknowledged yet."""
        if self._world.now_ms - self._heard_ms > SILENCE_MS:
            self.disconnect()
        if self._link is not None and self._leader is not None:
            link, leader = self._link, self._leader
            ended = tuple(update for update in self.journal.values() if update.state in ENDED)
            sent_ms = self._world.now_ms
            link.send("up", lambda: leader.heartbeat(self, link, sent_ms))
            if ended:
                link.send("up", lambda: leader.report(self, link, ended))

    def cut_off(self, ways: set[str], for_ms: int) -> None:
        """For some time nothing arrives by these ways; what was sent may arrive after that."""
        self._held |= ways
        self._cuts += 1
        cuts = self._cuts
        self._world.after(for_ms, lambda: self._heal(cuts))

    def _heal(self, cuts: int) -> None:
        if cuts == self._cuts:
            self._held.clear()
            if self._link is not None:
                self._link.release()

    # --- the node lease ---------------------------------------------------------------------------
    def answered(self, term: int, sent_ms: int) -> None:
        self._heard_ms = self._world.now_ms
        self._lease = lease.renewed(self._lease, term, sent_ms, LEASE_MS, GRACE_MS)
        self._world.after(max(0, self._lease.until_ms - self._world.now_ms), self._end_leased)

    def _end_leased(self) -> None:
        """Keeper and supervisor take up to the grace and the drift for it."""
        if self._world.now_ms < self._lease.until_ms:
            return
        for attempt in self._leased:
            if self.journal[attempt].state == "running":
                delay_ms = self._world.random.randint(0, GRACE_MS + lease.DRIFT_MS - 1)
                self._later(delay_ms, attempt, -1, "lease_expired")

    # --- orders -----------------------------------------------------------------------------------
    def receive(self, order: Order) -> None:
        if isinstance(order, StartOrder):
            attempt = attempt_id((order.job, order.task, order.index, order.number))
            if attempt in self.journal:
                return
            if self._policy(order.job, order.task) == "stop":
                self._prepare(attempt)
            else:
                self._start(attempt)
        elif order.attempt in self.journal:
            delay_ms = min(order.grace_ms, self._world.random.randint(0, 3_000))
            self._later(delay_ms, order.attempt, -1, order.reason)

    def forget(self, attempts: tuple[str, ...]) -> None:
        for attempt in attempts:
            self.journal.pop(attempt, None)
            self._leased.pop(attempt, None)

    def _prepare(self, attempt: str) -> None:
        """Its image takes a while, in which the lease may end and another one begin."""
        self.journal[attempt] = AttemptUpdate(attempt=attempt, state="preparing")
        self._leased[attempt] = since_ms = self._lease.since_ms
        boots = self._boots

        def ready() -> None:
            update = self.journal.get(attempt)
            if boots != self._boots or update is None or update.state != "preparing":
                return
            if lease.may_start(self._lease, since_ms, self._world.now_ms):
                self._start(attempt)
            else:
                self._end(attempt, boots, -1, "lease_expired")

        self._world.after(self._world.random.choice((0, 0, 500, 40_000)), ready)

    def _start(self, attempt: str) -> None:
        random = self._world.random
        self._history.starts.setdefault(attempt, []).append(self._world.now_ms)
        self.journal[attempt] = AttemptUpdate(attempt=attempt, state="running", started_at=self._world.now_ms)
        if random.random() < 0.5:
            self._tell(self.journal[attempt])
        length_ms = random.choice((1, 10, 100, 3_000, 30_000))
        code = random.choices((0, 1, 2), (0.85, 0.1, 0.05))[0]
        self._later(length_ms, attempt, code, "exited")

    def _later(self, delay_ms: int, attempt: str, code: int, reason: str) -> None:
        boots = self._boots
        self._world.after(delay_ms, lambda: self._end(attempt, boots, code, reason))

    def _end(self, attempt: str, boots: int, code: int, reason: str) -> None:
        running = self.journal.get(attempt)
        if boots != self._boots or running is None or running.state in ENDED:
            return
        now_ms = self._world.now_ms
        if running.state == "running":
            self._history.ends[attempt] = (now_ms, code)
        self.journal[attempt] = AttemptUpdate(
            attempt=attempt,
            state="lost" if reason == "lease_expired" else "finished",
            reason=reason,
            exit_code=None if code < 0 else code,
            signal=15 if code < 0 else None,
            started_at=running.started_at,
            finished_at=now_ms,
        )
        self._tell(self.journal[attempt])

    def _tell(self, update: AttemptUpdate) -> None:
        if self._link is not None and self._leader is not None:
            link, leader = self._link, self._leader
            link.send("up", lambda: leader.report(self, link, (update,)))

    def machine_dies(self) -> None:
        """Power off and on: containers and journal are gone, and the next Hello has another instance."""
        self.disconnect()
        for attempt, update in self.journal.items():
            if update.state == "running":
                self._history.killed[attempt] = self._world.now_ms
        self.journal = {}
        self._leased = {}
        self._lease = lease.NONE
        self._boots += 1
