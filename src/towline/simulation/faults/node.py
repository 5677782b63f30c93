"""A simulated node: its agent, around production's ``AgentMachine`` and rules of the node lease, above a
``Host``.

Links are opened, watched and given up as agent/link.py does it: to any of the servers, and beside a silent
one to another one."""

from __future__ import annotations

from collections import deque

from towline.agent.cluster.servers import Servers
from towline.core import lease as rules
from towline.core.agent import effects as out
from towline.core.agent import events as on
from towline.core.agent.machine import AgentMachine
from towline.core.agent.pauses import CLUSTER
from towline.core.commands import AttemptUpdate
from towline.server.peers.pool import url
from towline.simulation.faults.host import Host, Plan
from towline.simulation.faults.network import NODE, Network, Wire
from towline.simulation.faults.server import Server
from towline.simulation.faults.truth import Truth
from towline.simulation.faults.world import MS, SECOND, World
from towline.wire import messages as wire
from towline.wire.versions import OLDEST, VERSION

BEAT_US = 2 * SECOND
PATIENCE_US = 2 * BEAT_US
OPEN_TIMEOUT_US = 30 * SECOND
MOST_OPENING = 4
SLOW_MS = 250
SHORT_US = (MS, 10 * MS, 100 * MS, 500 * MS, 3 * SECOND, 3 * SECOND)
LONG_US = (30 * SECOND, 45 * SECOND, 60 * SECOND)
"""Of containers; the long ones while there are faults, and more often of what lives by the lease."""
LONG, LONG_LEASED = 0.2, 0.4
QUICK_US = (0, 0, 0, 0, 500 * MS)
PREPARATIONS_US = (*QUICK_US, 40 * SECOND)
PROTECTS = (rules.PROTECTION,)


class Node:
    """One machine with its agent, through all its lives."""

    def __init__(
        self,
        world: World,
        network: Network,
        truth: Truth,
        servers: list[Server],
        name: str,
        pool: str,
        cpu: int,
    ) -> None:
        self.world = world
        self.network = network
        self.truth = truth
        self.servers = servers
        self.name = name
        self.pool = pool
        self.cpu_milli = cpu
        self.host = Host(world, name, truth)
        self.by_url = {url(server.name): server for server in servers}
        self.known = Servers(world.random.choice(list(self.by_url)), shuffle=world.random.shuffle)
        """Kept by the node, whichever agent asks."""
        self.powered = True
        self.agent: Agent | None = None
        self.start()

    def start(self) -> None:
        if self.agent is None and self.powered:
            self.agent = Agent(self)
            self.agent.begin()

    @property
    def idle(self) -> bool:
        return self.agent is not None and self.host.idle and self.agent.machine.attempt_count == 0

    # --- faults ---------------------------------------------------------------------------------------
    def agent_dies(self, for_us: int) -> None:
        if self.agent is not None:
            self.world.tell(self.name, "the agent dies")
            self.agent.die()
            self.agent = None
            self.world.after(for_us, self.start)

    def agent_freezes(self, for_us: int) -> None:
        if self.agent is not None and not self.agent.frozen:
            self.world.tell(self.name, "the agent freezes")
            self.agent.frozen = True
            self.world.after(for_us, self.agent.thaw)

    def power_fails(self, for_us: int) -> None:
        """The wires only end where somebody still sends something by them."""
        if not self.powered:
            return
        self.world.tell(self.name, "has no power")
        for one in self.network.wires_of(self.name):
            one.vanish(NODE)
        if self.agent is not None:
            self.agent.die()
            self.agent = None
        self.host.power_fails()
        self.powered = False
        self.world.after(for_us, self._power)

    def _power(self) -> None:
        self.powered = True
        self.start()


class Agent:
    """One life of the agent."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.world = node.world
        self.host = node.host
        self.machine = AgentMachine()
        self.alive = True
        self.frozen = False
        self._missed: list[tuple[Wire, bytes | None]] = []
        self._events: deque[on.Event] = deque()
        self._handling = self._flushing = self._saying = False
        self._waiting: list[wire.FromAgent] = []
        self._tasks: dict[tuple[str, int], str] = {}
        self._preparing: dict[str, None] = {}
        self._times: wire.LeaseTimes | None = None
        self._link: Wire | None = None
        self._welcomed = False
        self._opening: dict[Wire, tuple[int, str]] = {}
        """Since when, and to which URL."""
        self._url = ""
        self._heard_us = self._hello_ms = self._tries = 0

    def begin(self) -> None:
        self.host.told = self._changed
        self.host.supervisor = self._supervisor
        self._supervisor(self.host.supervised)
        self.world.after(self.world.random.randrange(BEAT_US), self._beat)
        self.world.after(self.world.random.randrange(200 * MS), self._dial)

    def die(self) -> None:
        self.alive = False
        self.host.told, self.host.supervisor = _unheard, lambda _: None
        for one in [*self._opening, *([self._link] if self._link is not None else [])]:
            one.heard[NODE], one.closed[NODE] = lambda _: None, lambda: None
            one.close(NODE)

    def thaw(self) -> None:
        """What has arrived meanwhile is read now."""
        if not self.alive or not self.frozen:
            return
        self.frozen = False
        if self.machine.instance is None or self.host.supervised:
            self._supervisor(self.host.supervised)
        missed, self._missed = self._missed, []
        for link, frame in missed:
            self._frame(link, frame)

    # --- the supervisor -------------------------------------------------------------------------------
    def _supervisor(self, there: bool) -> None:
        if self.frozen or not self.alive:
            return
        if there:
            known = tuple(self.host.journal.values())
            self.tell(on.SupervisorUp(self.host.instance, known))
        else:
            self.tell(on.SupervisorDown())

    def _changed(self, updates: list[AttemptUpdate]) -> None:
        if not self.frozen:  # a frozen one reads the journal when it goes on
            self.tell(on.Changed(updates))

    # --- the machine ----------------------------------------------------------------------------------
    def tell(self, *events: on.Event) -> None:
        """Hand events to the machine, in order, also those that their own effects cause."""
        self._events.extend(events)
        if self._handling:
            return
        self._handling = True
        while self._events:
            for effect in self.machine.handle(self._events.popleft(), self.host.clocks.now_ms()):
                self._perform(effect)
        self._handling = False
        if self.machine.wants_flush and not self._flushing:
            self._flushing = True
            self.world.after(self.world.random.randrange(3 * MS), self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self.alive and not self.frozen:
            self.tell(on.Flush())

    def _perform(self, effect: out.Effect) -> None:
        match effect:
            case out.SendReport():
                self._say(wire.Report(seq=effect.seq, updates=effect.updates))
            case out.SendHello():
                self._hello(effect)
            case out.Prepare():
                self._prepare(effect)
            case out.RunPlans():
                self.host.run([plan for plan in effect.plans if isinstance(plan, Plan)])
            case out.StopAttempt():
                self.host.stop(effect.attempt, effect.reason, effect.grace_ms)
            case out.Forget():
                self.host.forget(effect.attempts)
            case out.CancelPrepare():
                self._preparing.pop(effect.attempt, None)
            case out.DropLink():
                self._drop()

    # --- preparation ----------------------------------------------------------------------------------
    def _prepare(self, order: out.Prepare) -> None:
        policy = self._tasks.get((order.job, order.task))
        if policy is None:
            self._events.append(on.Declined([name for name, _, _ in order.elements]))
            self._drop()
            return
        held = 0 if self._times is None else self.host.lease.since_ms
        lease_ms = held if policy == "stop" else 0
        random = self.world.random
        for name, _, _ in order.elements:
            self._preparing[name] = None
            code = random.choices((0, 1, 2), (0.85, 0.1, 0.05))[0]
            long = self.world.faulty and random.random() < (LONG_LEASED if lease_ms else LONG)
            length_us = random.choice(LONG_US if long else SHORT_US)
            plan = Plan(name, lease_ms, length_us, code)
            takes_us = random.choice(PREPARATIONS_US if self.world.faulty else QUICK_US)
            if takes_us > SLOW_MS * MS:
                self.world.after(SLOW_MS * MS, self._slow, name)
            self.world.after(takes_us, self._prepared, plan)

    def _slow(self, name: str) -> None:
        if self.alive and not self.frozen and name in self._preparing:
            self.tell(on.Slow([name]))

    def _prepared(self, plan: Plan) -> None:
        if self.frozen and self.alive:
            self.world.after(500 * MS, self._prepared, plan)
        elif self.alive and plan.attempt in self._preparing:
            del self._preparing[plan.attempt]
            self.tell(on.Prepared([(plan.attempt, plan)]))

    # --- the link -------------------------------------------------------------------------------------
    def _dial(self) -> None:
        """Open one more link, to the server whose turn it is."""
        if not self.alive or len(self._opening) >= MOST_OPENING:
            return
        world, node = self.world, self.node
        asked = node.known.next()
        server = node.by_url[asked]
        link = node.network.wire(node.name, server.name)
        link.heard[NODE] = lambda frame: self._frame(link, frame)
        link.closed[NODE] = lambda: self._frame(link, None)
        self._opening[link] = (world.now_us, asked)
        world.after(node.network.latency_us(node.name, server.name), self._arrives, link, server)

    def _arrives(self, link: Wire, server: Server) -> None:
        """What the node's kernel has sent to open it reaches the server, or is sent again."""
        if not link.is_open(NODE):
            return
        if self.node.network.is_cut(self.node.name, server.name):
            self.world.after(SECOND, self._arrives, link, server)
        else:
            server.accept(link, self.node.pool)

    def _dial_later(self, wait_us: int | None = None) -> None:
        """``wait_us``: what a server has told; 0: it has said which one to ask."""
        bound_s = CLUSTER.bound_s(self._tries, 0) if wait_us is None else CLUSTER.first_s
        self._tries += 1
        pause_us = 0 if wait_us == 0 else self.world.random.randrange(int(bound_s * SECOND)) + (wait_us or 0)
        self.world.after(pause_us, self._redial)

    def _redial(self) -> None:
        if self._link is None and not self._opening:
            self._dial()

    def _beat(self) -> None:
        if not self.alive:
            return
        self.world.after(BEAT_US, self._beat)
        if self.frozen:
            return
        now_us = self.world.now_us
        for link, (since_us, asked) in list(self._opening.items()):
            if now_us - since_us > OPEN_TIMEOUT_US:
                del self._opening[link]
                link.close(NODE)
                self.node.known.failed(asked)
        if self._link is None:
            if self._opening:  # one that hangs is not waited for alone
                self._dial()
            else:
                self._redial()
            return
        silent_us = now_us - self._heard_us
        if silent_us > OPEN_TIMEOUT_US:
            self._drop()
        elif silent_us > PATIENCE_US:
            if not self._opening:
                self.node.known.silent()
            self._dial()
        if self._link is not None and self._welcomed:
            term = 0 if self._times is None else self.host.lease.term
            self._say(wire.Heartbeat(sent_boottime_ms=self.host.clocks.boot_ms(), lease_term=term))
            self.tell(on.Tick())

    def _frame(self, link: Wire, frame: bytes | None) -> None:
        if not self.alive:
            return
        if self.frozen:
            self._missed.append((link, frame))
        elif frame is None:
            self._closed(link)
        elif link in self._opening:
            self._opened(link, self._opening.pop(link)[1])
        elif link is self._link:
            self._heard_us = self.world.now_us
            for message in wire.decode_from_server(frame):
                if link is self._link:
                    self._hear(message)

    def _closed(self, link: Wire) -> None:
        if link in self._opening:
            self.node.known.failed(self._opening.pop(link)[1])
        if link is self._link:
            self._link = None
            self.tell(on.LinkClosed())
        if self._link is None and not self._opening:
            self._dial_later()

    def _opened(self, link: Wire, asked: str) -> None:
        """It takes the place of the one that is silent."""
        if self._link is not None:
            old, self._link = self._link, None
            old.close(NODE)
            self.tell(on.LinkClosed())
        for other in list(self._opening):
            del self._opening[other]
            other.close(NODE)
        self._link, self._welcomed, self._url = link, False, asked
        self._heard_us = self.world.now_us
        self._waiting.clear()
        if self.machine.instance is None:  # the journal was not read yet
            self._drop()
            return
        self.tell(on.LinkOpened())

    def _drop(self, wait_us: int | None = None) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close(NODE)
            self._events.append(on.LinkClosed())
            self.tell()
            if not self._opening:
                self._dial_later(wait_us)

    # --- what is said ---------------------------------------------------------------------------------
    def _hello(self, effect: out.SendHello) -> None:
        self._hello_ms = self.host.clocks.boot_ms()
        self._say(
            wire.Hello(
                version=OLDEST,
                newest=VERSION,
                build="simulated",
                node=self.node.name,
                name=self.node.name,
                instance=effect.instance,
                boot_id=effect.instance,
                cpu_milli=self.node.cpu_milli,
                memory_bytes=2**34,
                pids=10_000,
                labels={},
                runtimes={"process": None, "oci": None},
                known=effect.known,
                protects={"process": PROTECTS, "oci": PROTECTS},
                sent_boottime_ms=self._hello_ms,
            )
        )

    def _say(self, message: wire.FromAgent) -> None:
        self._waiting.append(message)
        if not self._saying:
            self._saying = True
            self.world.after(50, self._send)

    def _send(self) -> None:
        self._saying = False
        if self.alive and self._link is not None and self._waiting:
            waiting, self._waiting = self._waiting, []
            self._link.send(NODE, wire.encode(waiting))

    # --- what is heard --------------------------------------------------------------------------------
    def _hear(self, message: wire.FromServer) -> None:
        match message:
            case wire.HeartbeatAnswer():
                if message.term < self.machine.term:
                    self._drop()
                else:
                    self.answered(message.term, message.sent_boottime_ms)
            case wire.Start():
                self.tell(
                    on.Start(message.term, message.job, message.task, message.elements, message.devices)
                )
            case wire.Stop():
                self.tell(on.Stop(message.term, message.attempt, message.reason, message.grace_ms))
            case wire.Ack():
                if message.term >= self.machine.term:
                    self.node.truth.forgotten(self.node.name, tuple(message.forget))
                self.tell(on.Acked(message.term, message.seq, message.forget))
            case wire.TaskInfo():
                self._tasks[message.job, message.task] = message.spec.on_disconnect
            case wire.Welcome():
                self._welcome(message)
            case wire.Refused():
                self._refused(message)
            case wire.Maintenance():
                self._maintained(message)
            case _:
                pass

    def _refused(self, message: wire.Refused) -> None:
        known = self.node.known
        known.heard_of(message.servers)
        newer = bool(message.leader) and message.term >= self.machine.term
        self._drop(0 if newer and known.moved(message.leader) else (message.retry_ms or 0) * MS)

    def _welcome(self, message: wire.Welcome) -> None:
        if message.term < self.machine.term:
            self._drop()
            return
        self._welcomed, self._tries = True, 0
        self.node.known.welcomed(self._url, message.servers)
        self._times = message.lease
        self.answered(message.term, self._hello_ms)
        self.tell(on.Welcomed(message.term))

    def answered(self, term: int, sent_ms: int) -> None:
        """The leader of ``term`` has answered what was sent at ``sent_ms`` (CLOCK_BOOTTIME)."""
        if self._times is not None:
            times = self._times
            self.host.grant(rules.renewed(self.host.lease, term, sent_ms, times.lease_ms, times.grace_ms))

    def _maintained(self, message: wire.Maintenance) -> None:
        if self._times is not None and self.host.lease.term == message.term:
            sent_ms = self.host.lease.until_ms - self._times.lease_ms
            self._times = wire.LeaseTimes(lease_ms=message.lease_ms, grace_ms=self._times.grace_ms)
            self.answered(message.term, sent_ms)


def _unheard(_: list[AttemptUpdate]) -> None:
    """Nobody listens to the supervisor."""
