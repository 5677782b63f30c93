"""One simulated history: some minutes of faults, then healing, then the verdict."""

from __future__ import annotations

from dataclasses import dataclass

from towline.simulation.checker import judge
from towline.simulation.client import SimClients
from towline.simulation.leader import SimLeader
from towline.simulation.node import History, SimNode
from towline.simulation.world import World
from towline.store.port import Store

FAULTS_MS = 120_000
HEAL_MS = 3_600_000
"""Virtual time in which everything must have ended after the last fault."""


@dataclass(frozen=True)
class Verdict:
    """``broken``: each broken promise in words. ``steps`` counts what happened; the rest is for people."""

    seed: int
    broken: list[str]
    steps: int
    jobs: int
    starts: int
    faults: dict[str, int]

    def __str__(self) -> str:
        head = f"seed {self.seed}: {self.steps} steps, {self.jobs} jobs, {self.starts} starts, {self.faults}"
        return "\n".join([head, *(f"  BROKEN: {fault}" for fault in self.broken)])


class Simulation:
    """A leader that is replaced when it dies, nodes, clients and a hand that breaks things."""

    def __init__(self, seed: int, store: Store) -> None:
        self.world = World(seed)
        self.store = store
        self.history = History()
        random = self.world.random
        self.nodes = [
            SimNode(self.world, f"n{at}", random.choice((1000, 2000, 4000)), self.history, self._policy)
            for at in range(random.randint(1, 4))
        ]
        # Something must be able to run the largest element.
        self.nodes.append(SimNode(self.world, "large", 4000, self.history, self._policy))
        self.leader: SimLeader | None = None
        self.clients = SimClients(self.world, store, lambda: self.leader)
        self._replacing = False

    def _policy(self, job: str, task: int) -> str:
        return list(self.clients.sent[job].tasks.values())[task].on_disconnect

    async def run(self) -> Verdict:
        await self.store.open()
        world = self.world
        world.after(0, self._watch)
        world.after(0, self._break_something)
        for _ in range(world.random.randint(5, 15)):
            world.after(world.random.randint(0, FAULTS_MS // 2), self.clients.submit)
        await world.run(lambda: False, FAULTS_MS)
        world.faults = False
        healed = await world.run(self._quiet, HEAL_MS)
        broken = [] if healed else ["not everything had ended an hour after the last fault"]
        broken += await judge(self.store, self.clients.accepted, self.history)
        starts = sum(map(len, self.history.starts.values()))
        return Verdict(world.seed, broken, world.steps, len(self.clients.sent), starts, world.counts)

    def _quiet(self) -> bool:
        clients = self.clients
        if clients.retrying or len(clients.accepted) < len(clients.sent) or self.leader is None:
            return False
        pool = self.leader.pool
        if pool is None or pool.unfinished_jobs or not self.leader.all_committed:
            return False
        return not any(node.journal for node in self.nodes)

    async def _watch(self) -> None:
        """Every so often: a dead leader is replaced, unconnected nodes connect, heartbeats are sent."""
        world = self.world
        if self.leader is None or not self.leader.leading:
            await self._replace()
        assert self.leader is not None
        for node in self.nodes:
            if not node.connected and not world.chance("a node stays away", 0.8):
                node.connect(self.leader)
            node.beat()
            if not world.faults:
                self.clients.undrain(node.name)
        world.after(1_000, self._watch)

    async def _replace(self) -> None:
        self.leader = SimLeader(self.world, self.store)
        await self.leader.take_over()

    async def _break_something(self) -> None:
        world, random = self.world, self.world.random
        if not world.faults:
            return
        node = random.choice(self.nodes)
        if world.chance("a link breaks", 0.3):
            node.disconnect()
        if world.chance("a node is cut off", 0.03):
            ways = random.choice(({"up"}, {"down"}, {"up", "down"}))
            node.cut_off(ways, random.randint(1_000, 60_000))
        if world.chance("a node is drained", 0.05):
            self.clients.drain(node.name)
        if world.chance("a machine dies", 0.05):
            node.machine_dies()
        if self.leader is not None and world.chance("the leader crashes", 0.05):
            self.leader.crash()
        if self.leader is not None and world.chance("a second leader takes over", 0.05):
            # The old one does not know it yet: it goes on until a commit is refused.
            for other in self.nodes:
                if random.random() < 0.5:
                    other.disconnect()
            self.leader.holds_lease = False
            await self._replace()
        world.after(random.randint(100, 3_000), self._break_something)


async def simulate(seed: int, store: Store) -> Verdict:
    """Run one history on an empty store."""
    return await Simulation(seed, store).run()
