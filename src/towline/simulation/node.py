"""A simulated node: an agent that may die, over a journal and containers that outlive it.

``History`` is what really happened, written by the nodes and never by the pool: the checker
judges by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from towline.core.commands import AttemptUpdate, Order, StartOrder, attempt_id
from towline.core.rows import NodeRow
from towline.simulation.leader import SimLeader
from towline.simulation.world import Link, World


@dataclass
class History:
    """The truth: when each attempt started and how it ended, by attempt."""

    starts: dict[str, list[int]] = field(default_factory=dict)
    ends: dict[str, tuple[int, int]] = field(default_factory=dict)
    """(time, exit code; -1 where it was stopped)."""
    killed: set[str] = field(default_factory=set)
    """Attempts that ended with the machine, so that nobody knows how."""


class SimNode:
    """``journal`` survives the agent, ``machine_dies`` takes it."""

    def __init__(self, world: World, name: str, cpu_milli: int, history: History) -> None:
        self._world = world
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
        self._link, self._leader = Link(self._world), leader
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
        )
        known = tuple(self.journal.values())
        link = self._link
        link.send("up", lambda: leader.hello(self, link, row, known))

    def disconnect(self) -> None:
        """The link breaks: what is under way on it is lost, and the leader notices later."""
        if self._link is not None:
            link, leader = self._link, self._leader
            link.close()
            assert leader is not None
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
        if self._link is not None and self._leader is not None:
            link, leader = self._link, self._leader
            ended = tuple(update for update in self.journal.values() if update.state == "finished")
            link.send("up", lambda: leader.heartbeat(self))
            if ended:
                link.send("up", lambda: leader.report(self, link, ended))

    # --- orders -----------------------------------------------------------------------------------
    def receive(self, order: Order) -> None:
        if isinstance(order, StartOrder):
            key = (order.job, order.task, order.index, order.number)
            self._start(attempt_id(key))
        elif order.attempt in self.journal:
            delay_ms = min(order.grace_ms, self._world.random.randint(0, 3_000))
            reason = order.reason
            self._world.after(delay_ms, lambda: self._end(order.attempt, self._boots, -1, reason))

    def forget(self, attempts: tuple[str, ...]) -> None:
        for attempt in attempts:
            self.journal.pop(attempt, None)

    def _start(self, attempt: str) -> None:
        if attempt in self.journal:
            return
        random = self._world.random
        self._history.starts.setdefault(attempt, []).append(self._world.now_ms)
        self.journal[attempt] = AttemptUpdate(attempt=attempt, state="running", started_at=self._world.now_ms)
        if random.random() < 0.5:
            self._tell(self.journal[attempt])
        length_ms = random.choice((1, 10, 100, 3_000, 30_000))
        code = random.choices((0, 1, 2), (0.85, 0.1, 0.05))[0]
        boots = self._boots
        self._world.after(length_ms, lambda: self._end(attempt, boots, code, "exited"))

    def _end(self, attempt: str, boots: int, code: int, reason: str) -> None:
        running = self.journal.get(attempt)
        if boots != self._boots or running is None or running.state != "running":
            return
        now_ms = self._world.now_ms
        self._history.ends[attempt] = (now_ms, code)
        self.journal[attempt] = AttemptUpdate(
            attempt=attempt,
            state="finished",
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
                self._history.killed.add(attempt)
        self.journal = {}
        self._boots += 1
