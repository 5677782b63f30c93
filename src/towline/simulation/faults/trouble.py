"""The hand that breaks things: faults at random moments, each for a while."""

from __future__ import annotations

from collections.abc import Callable

from towline.simulation.faults.client import Clients
from towline.simulation.faults.network import Network, Way
from towline.simulation.faults.node import Node
from towline.simulation.faults.server import Server
from towline.simulation.faults.storing import STORE, Database
from towline.simulation.faults.world import MS, SECOND, World

FIRST_US, LAST_US = 100 * MS, 4 * SECOND
"""Between two faults."""
TEMPERS = (0.0, 0.3, 1.0, 1.0, 3.0)
"""By what each kind of fault is more or less likely in one history."""
RECOVERY_US = 8 * SECOND
LONG_US = 32 * SECOND
STEPS = 60
"""A server that is to die dies within so many of its steps."""


class Trouble:
    """``begin`` until the world is not ``faulty`` any more; ``heal`` then mends everything at once."""

    def __init__(
        self,
        world: World,
        network: Network,
        database: Database,
        servers: list[Server],
        nodes: list[Node],
        clients: Clients,
    ) -> None:
        self.world = world
        self.network = network
        self.database = database
        self.servers = servers
        self.nodes = nodes
        self.clients = clients
        self._struck: dict[str, str] = {}
        self._troubled_us: dict[str, int] = {}
        """Until when each server has its trouble, and some time to get over it."""
        self._calm_us = 0
        """Until when servers are left alone."""
        database.struck = self._at_a_commit
        self._kinds: list[tuple[float, str, Callable[[], None]]] = [
            (3.0, "a link breaks", self._break_link),
            (2.0, "a node is cut off", self._cut_node),
            (2.0, "a node is heard late, and then cut off", self._lag_and_cut),
            (2.0, "a way is slow", self._slow_way),
            (1.5, "a server is cut off from the store", self._cut_store),
            (0.7, "a server is cut off from a node", self._cut_server_node),
            (1.5, "a server is killed", self._kill_server),
            (1.0, "a server freezes", self._freeze_server),
            (0.5, "a server stops cleanly", self._stop_server),
            (0.4, "the store is down", self._store_down),
            (0.8, "an agent dies", self._agent_dies),
            (0.6, "an agent freezes", self._agent_freezes),
            (0.8, "a supervisor dies", self._supervisor_dies),
            (0.8, "a supervisor freezes", self._supervisor_freezes),
            (0.7, "a machine loses its power", self._power_fails),
            (0.7, "a node is drained", self._drain),
            (0.7, "a queue changes", self.clients.change_queue),
        ]
        # What is rare in one history is common in another, so that faults that need a while of peace get it.
        self._weights = [weight * world.random.choice(TEMPERS) for weight, _, _ in self._kinds]
        if not any(self._weights):
            self._weights[0] = 1.0

    def begin(self) -> None:
        self.world.after(self.world.random.randrange(FIRST_US, LAST_US), self._strike)

    def _strike(self) -> None:
        if not self.world.faulty:
            return
        random = self.world.random
        _, name, strike = random.choices(self._kinds, self._weights)[0]
        self.world.count(name)
        self.world.tell("fault", name)
        strike()
        self.begin()

    def heal(self) -> None:
        """No fault any more; whatever is down comes back."""
        self.world.faulty = False
        self.world.tell("fault", "all is healed")
        self.database.down = False
        self.network.heal_all()
        for server in self.servers:
            server.process.thaw()
            server.process.light(-1, lambda: None)
            if not server.process.alive:
                server.start()
        for node in self.nodes:
            for later_us in (0, 30 * SECOND, 90 * SECOND):  # the request to drain it may come yet
                self.world.after(later_us, self.clients.undrain, node.pool, node.name)

    # --- how long -------------------------------------------------------------------------------------
    def _while_us(self) -> int:
        """Often short of every time-out, sometimes beyond all of them."""
        random = self.world.random
        return random.randrange(random.choice((3, 12, 45)) * SECOND)

    def _long_us(self) -> int:
        """Beyond every lease and every patience."""
        return self.world.random.randrange(26 * SECOND, 45 * SECOND)

    def _cut(self, ways: list[Way], for_us: int) -> None:
        self.network.cut(ways)
        self.world.after(for_us, self.network.heal, ways)

    def _some_of(self, one: Way) -> list[Way]:
        """One way, the other, or both."""
        back = (one[1], one[0])
        return self.world.random.choice(([one], [back], [one, back], [one, back]))

    def _server(self) -> Server:
        """One that leads something, more often than not."""
        leading = [server for server in self.servers if server.leads]
        random = self.world.random
        return random.choice(leading if leading and random.random() < 0.7 else self.servers)

    def _victim(self, for_us: int) -> Server | None:
        """A server that is well, for a fault that lasts so long; None where enough of them are in trouble:
        where nobody ever leads, nothing can go wrong."""
        now_us, server = self.world.now_us, self._server()
        if now_us < self._calm_us:
            return None
        troubled = sum(until_us > now_us for until_us in self._troubled_us.values())
        if troubled >= (len(self.servers) + 1) // 2 or self._troubled_us.get(server.name, 0) > now_us:
            return None
        self._troubled_us[server.name] = now_us + for_us + RECOVERY_US
        return server

    def _node(self) -> Node:
        """One on which something lives by its lease, more often than not."""
        leased = [node for node in self.nodes if node.host.lives_by_lease()]
        random = self.world.random
        return random.choice(leased if leased and random.random() < 0.7 else self.nodes)

    # --- the network ----------------------------------------------------------------------------------
    def _break_link(self) -> None:
        node = self._node()
        for wire in self.network.wires_of(node.name):
            wire.break_()

    def _cut_node(self) -> None:
        directions = self.world.random.choice((0, 1, 2))
        there, back = self._ways_of(self._node())
        ways = [*(there if directions != 1 else []), *(back if directions != 0 else [])]
        self._cut(ways, self.world.random.choice((self._while_us(), self._long_us())))

    def _lag_and_cut(self) -> None:
        """First what it is told comes late, then nobody hears it: what it was told last it may hear yet."""
        random = self.world.random
        long = [node for node in self.nodes if node.host.lives_by_lease(LONG_US)]
        node = random.choice(long) if long else self._node()
        there, back = self._ways_of(node)
        lag_us = random.randrange(SECOND, 5 * SECOND)
        if random.random() < 0.7:  # who leads then will find it lost, unless another one follows
            self._calm_us = self.world.now_us + 2 * lag_us + 32 * SECOND
        for way in back:
            self.network.slow(way, lag_us)
        cut_after_us = 2 * lag_us + random.randrange(4 * SECOND)
        for_us = self._long_us()
        cut = random.choice((there, there, [*there, *back]))
        self.world.after(cut_after_us, self._cut, cut, for_us)
        if random.random() < 0.7:  # and what it is told then it reads even later
            self.world.after(cut_after_us, node.agent_freezes, random.randrange(2 * SECOND, 12 * SECOND))
        for way in back:
            self.world.after(cut_after_us + for_us, self.network.slow, way, 0)

    def _ways_of(self, node: Node) -> tuple[list[Way], list[Way]]:
        """To all servers, and back."""
        names = [server.name for server in self.servers]
        return [(node.name, name) for name in names], [(name, node.name) for name in names]

    def _cut_server_node(self) -> None:
        node, server = self._node(), self._server()
        self._cut(self._some_of((node.name, server.name)), self._while_us())

    def _cut_store(self) -> None:
        """From the store, and not from its agents."""
        for_us = self._while_us()
        if (server := self._victim(for_us)) is not None:
            self._cut(self._some_of((server.name, STORE)), for_us)

    def _slow_way(self) -> None:
        random = self.world.random
        node, server, for_us = random.choice(self.nodes), self._server(), self._while_us()
        ways = [(node.name, server.name), (server.name, node.name)]
        if random.random() < 0.3 and (victim := self._victim(for_us)) is not None:
            ways = [(victim.name, STORE), (STORE, victim.name)]
        way = random.choice(ways)
        self.network.slow(way, random.randrange(50 * MS, 6 * SECOND))
        self.world.after(for_us, self.network.slow, way, 0)

    # --- servers and the store ------------------------------------------------------------------------
    def _kill_server(self) -> None:
        """At any await that is near, or around the next of its commits."""
        random = self.world.random
        for_us = random.randrange(500 * MS, 15 * SECOND)
        if (server := self._victim(for_us)) is None:
            return
        if random.random() < 0.5:
            self._struck[server.name] = "killed"
        else:
            server.process.light(random.randrange(STEPS), server.process.crash)
        self.world.after(for_us, self._restart, server)

    def _restart(self, server: Server) -> None:
        server.process.crash()
        server.start()

    def _freeze_server(self) -> None:
        for_us = self._while_us()
        if (server := self._victim(for_us)) is None:
            return
        process = server.process
        if self.world.random.random() < 0.3:
            self._struck[server.name] = "frozen"
        else:
            process.light(self.world.random.randrange(STEPS), process.freeze)
        self.world.after(for_us, process.thaw)

    def _at_a_commit(self, who: str, _: str) -> None:
        """What it has asked for is done, and it has not heard of that."""
        how = self._struck.pop(who, None) if self.world.faulty else None
        server = next((server for server in self.servers if server.name == who), None)
        if how is None or server is None:
            return
        if how == "killed":
            server.process.crash()
        else:
            server.process.freeze()
            self.world.after(self._while_us(), server.process.thaw)

    def _stop_server(self) -> None:
        for_us = self.world.random.randrange(3 * SECOND, 15 * SECOND)
        server = self._victim(for_us)
        if server is not None and server.process.alive:
            server.stop()
            self.world.after(for_us, self._restart, server)

    def _store_down(self) -> None:
        for_us = self._while_us() // 2
        if self._victim(for_us) is not None:
            self.database.down = True
            self.world.after(for_us, self._store_up)

    def _store_up(self) -> None:
        self.database.down = False

    # --- nodes ----------------------------------------------------------------------------------------
    def _agent_dies(self) -> None:
        self._node().agent_dies(self._while_us() // 2)

    def _agent_freezes(self) -> None:
        self._node().agent_freezes(self._while_us())

    def _supervisor_dies(self) -> None:
        self._node().host.supervisor_dies()

    def _supervisor_freezes(self) -> None:
        self._node().host.supervisor_freezes(self._while_us())

    def _power_fails(self) -> None:
        self.world.random.choice(self.nodes).power_fails(self.world.random.randrange(SECOND, 30 * SECOND))

    def _drain(self) -> None:
        node = self.world.random.choice(self.nodes)
        self.clients.drain(node.pool, node.name)
