"""One history: servers, nodes and clients for some minutes of faults, and then the verdict.

``safety``: faults until the end; nothing may ever be wrong. ``liveness``: the faults end, everything is
healed, and then everything has to finish."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from logging import CRITICAL

import structlog

from towline.core import invariants
from towline.core.rows import Changes
from towline.model.states import JobState
from towline.simulation.faults.client import Clients
from towline.simulation.faults.judging import judge
from towline.simulation.faults.network import Network
from towline.simulation.faults.node import Node
from towline.simulation.faults.server import Server
from towline.simulation.faults.storing import Database, now
from towline.simulation.faults.trouble import Trouble
from towline.simulation.faults.truth import Truth
from towline.simulation.faults.world import SECOND, World
from towline.store.memory import MemoryStore

MODES = ("safety", "liveness")
FAULTS_US = {"safety": 100 * SECOND, "liveness": 60 * SECOND}
LEAST_DELIVERED = 2_000
LEAST_FAULTS = 20
HEAL_US = 3_600 * SECOND
"""Virtual time in which everything must have ended after the last fault."""
LOOK_EVERY = 1_000
"""Steps between two looks at everything."""
MOST_NODES = 50


@dataclass(frozen=True)
class Verdict:
    """``broken``: each broken promise in words, after ``last`` of the schedule's steps. ``delivered`` counts
    messages; ``digest`` is of all of them and their times."""

    seed: int
    mode: str
    broken: list[str]
    steps: int
    delivered: int
    jobs: int
    starts: int
    commits: int
    faults: dict[str, int]
    digest: int
    virtual_s: float
    last: list[str] = field(default_factory=list, repr=False)

    @property
    def fault_count(self) -> int:
        return sum(self.faults.values())

    def __str__(self) -> str:
        head = (
            f"seed {self.seed} ({self.mode}): {self.delivered} messages, {self.steps} steps, "
            f"{self.jobs} jobs, {self.starts} starts, {self.commits} commits, {self.fault_count} faults, "
            f"{self.virtual_s:.0f} s, digest {self.digest:08x}"
        )
        last = [f"  {line}" for line in self.last]
        return "\n".join([head, *last, *(f"  BROKEN: {fault}" for fault in self.broken)])


class Simulation:
    """``store`` is empty; what it is made of may be broken on purpose, to see whether that is noticed."""

    def __init__(self, seed: int, mode: str, store: MemoryStore) -> None:
        self.mode = mode
        self.world = world = World(seed)
        self.store = store
        self.network = Network(world)
        self.truth = Truth(world)
        self.database = Database(world, self.network, store)
        self.database.done = self._done
        random = world.random
        self.pools = ["default", "other"][: random.choice((1, 1, 2))]
        for pool in self.pools:
            now(store.pool_create(pool))
        names = [f"server{at}" for at in range(random.choice((1, 2, 3, 3, 3)))]
        self.servers = [
            Server(world, self.network, self.database, self.truth, name, self.pools) for name in names
        ]
        self.nodes = [
            Node(world, self.network, self.truth, self.servers, f"node{at}", pool, cpu)
            for at, (pool, cpu) in enumerate(self._machines())
        ]
        self._looked_at = 0
        self.clients = Clients(world, self.network, self.truth, self.servers, self.pools)
        self.trouble = Trouble(world, self.network, self.database, self.servers, self.nodes, self.clients)

    def _machines(self) -> Iterator[tuple[str, int]]:
        """(pool, milli-CPUs); something in each pool can run the largest element."""
        random = self.world.random
        for pool in self.pools:
            yield pool, 4000
        more = random.randint(2, 6) if random.random() < 0.97 else random.randint(7, MOST_NODES - 2)
        for _ in range(more):
            yield random.choice(self.pools), random.choice((1000, 2000, 4000))

    def _done(self, who: str, name: str, args: tuple[object, ...], answer: object) -> None:
        match name, args, answer:
            case "commit", (str() as pool, int() as term, _, changes), _:
                assert isinstance(changes, Changes)
                self.truth.committed(pool, term, changes)
                for row in changes.jobs:
                    if row.state in (JobState.FAILED, JobState.CANCELLED):
                        self.clients.ended(pool, row.id)
            case "raise_term", (str() as pool,), int() as term:
                self.truth.raised(pool, term)
            case "load", (str() as pool, int() as term), _ if self._has_lease(who, pool):
                self.truth.loaded(pool, term)
            case _:
                pass

    def _has_lease(self, server: str, pool: str) -> bool:
        """Whoever loads a pool without it (that was asked for too long ago) leads nothing after that."""
        return any(one.seats[pool].lease.held for one in self.servers if one.name == server)

    # --- the history ----------------------------------------------------------------------------------
    def run(self) -> Verdict:
        world, clients = self.world, self.clients
        for pool in self.pools:
            clients.begin(pool)
        span_us = FAULTS_US[self.mode]
        for _ in range(world.random.randint(5, 11)):
            world.after(world.random.randrange(span_us * 2 // 3), clients.submit)
        self.trouble.begin()
        world.run(lambda: False, span_us, LOOK_EVERY, self.look)
        while not world.broken and not self._enough():
            world.run(self._enough, 20 * SECOND, LOOK_EVERY, self.look)
        healed = self.mode == "liveness" and not world.broken
        if healed:
            self.trouble.heal()
            if not world.run(self._quiet, HEAL_US, LOOK_EVERY, self.look):
                world.breach(f"not everything had ended an hour after the last fault: {self._unfinished()}")
        return self._verdict(healed)

    def _enough(self) -> bool:
        return self.world.delivered >= LEAST_DELIVERED and sum(self.world.counts.values()) >= LEAST_FAULTS

    def _verdict(self, healed: bool) -> Verdict:
        world = self.world
        self._looked_at = -1
        if not world.broken:
            self.look()
        if not world.broken:
            for what in judge(self.store, self.truth, self.pools, healed=healed):
                world.breach(what)
        verdict = Verdict(
            seed=world.seed,
            mode=self.mode,
            broken=list(world.broken),
            steps=world.steps,
            delivered=world.delivered,
            jobs=len(self.truth.accepted),
            starts=self.truth.starts,
            commits=self.truth.commits,
            faults=dict(world.counts),
            digest=world.digest,
            virtual_s=world.now_us / SECOND,
            last=world.last_steps if world.broken else [],
        )
        for server in self.servers:
            server.process.crash()
        return verdict

    def look(self) -> None:
        """Everything that can be told without waiting for the end, where anything has happened."""
        if self.truth.commits == self._looked_at:
            return
        self._looked_at = self.truth.commits
        for server in self.servers:
            for seat in server.seats.values():
                if (pool := seat.pool_in_memory) is not None:
                    try:
                        invariants.check(pool.state)
                    except AssertionError as broken:
                        self.world.breach(f"{server.name} leads {seat.pool}: {broken}")
        for what in judge(self.store, self.truth, self.pools, healed=False):
            self.world.breach(what)

    def _quiet(self) -> bool:
        return not self._unfinished()

    def _unfinished(self) -> str:
        """What has not ended, in words; empty where everything has."""
        if self.clients.open:
            return f"{list(self.clients.open)[:3]} were not answered"
        for pool in self.pools:
            found = [seat for server in self.servers if (seat := server.seats[pool]).leads]
            if len(found) != 1:
                return f"{pool} has {len(found)} leaders"
            memory = found[0].pool_in_memory
            assert memory is not None
            if memory.unfinished_jobs:
                return f"{list(memory.state.jobs)[:3]} of {pool} have not ended"
        busy = [node.name for node in self.nodes if not node.idle]
        return f"{busy[:3]} are not done" if busy else ""


@contextmanager
def quiet() -> Iterator[None]:
    """Servers that are simulated do not log; and the collector of garbage, which looks at everything again
    and again, has to wait until the history has ended."""
    before, collects = structlog.get_config(), gc.isenabled()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(CRITICAL))
    gc.disable()
    try:
        yield
    finally:
        structlog.configure(**before)
        if collects:
            gc.enable()


def simulate(seed: int, mode: str | None = None, store: Callable[[], MemoryStore] = MemoryStore) -> Verdict:
    """One history; the same seed and mode are the same history. ``mode`` None: safety for even seeds."""
    with quiet():
        return Simulation(seed, mode or MODES[seed % 2], store()).run()
