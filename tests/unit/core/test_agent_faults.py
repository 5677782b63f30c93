"""The agent's machine in a small world whose links break, whose processes die and whose leaders change.

The world is a model of what the machine may rely on: a leader with a record, a supervisor with a
journal, and two connections that keep the order of what they carry and lose all of it when they
break. It checks that nothing starts twice or after its end was told, that what the leader has on
record is what happened, and that at rest everything has ended, is on record and is forgotten.
"""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from towline.core.agent import effects as out
from towline.core.agent import events as on
from towline.core.agent.machine import AgentMachine
from towline.core.agent.outbox import REPEAT_MS
from towline.core.commands import AttemptUpdate, attempt_id

ENDED = ("finished", "lost")


def name_of(index: int) -> str:
    return attempt_id(("job1", 0, index, 1))


class Leader:
    """What a pool promises: orders what it has not heard of, acknowledges after it has recorded."""

    def __init__(self) -> None:
        self.term = 1
        self.instance: str | None = None
        self.ordered: list[int] = []
        self.stopped: set[int] = set()
        self.ended: dict[str, AttemptUpdate] = {}

    def hello(self, instance: str, known: tuple[AttemptUpdate, ...]) -> list[on.Event]:
        if self.instance not in (None, instance):
            names = {update.attempt for update in known}
            for index in self.ordered:
                name = name_of(index)
                if name not in names and name not in self.ended:
                    self.ended[name] = AttemptUpdate(attempt=name, state="lost", reason="supervision_lost")
        self.instance = instance
        orders: list[on.Event] = [on.Welcomed(self.term), on.Acked(self.term, 0, self.record(known))]
        names = {update.attempt for update in known}
        for index in self.ordered:
            name = name_of(index)
            if name in self.ended:
                continue
            if name not in names:
                orders.append(on.Start(self.term, "job1", 0, ((index, 1),)))
            if index in self.stopped:
                orders.append(on.Stop(self.term, name, "cancelled", 1_000))
        return orders

    def record(self, updates: tuple[AttemptUpdate, ...]) -> tuple[str, ...]:
        for update in updates:
            if update.state in ENDED:
                self.ended.setdefault(update.attempt, update)
        return tuple(update.attempt for update in updates if update.attempt in self.ended)


class Supervisor:
    """A journal, and what was started; containers outlive every process here but not the journal."""

    def __init__(self) -> None:
        self.journals = 1
        self.journal: dict[str, AttemptUpdate] = {}
        self.starts: dict[str, int] = {}
        self.stopping: set[str] = set()

    @property
    def instance(self) -> str:
        return f"journal {self.journals}"

    def end(self, name: str, reason: str) -> AttemptUpdate:
        update = AttemptUpdate(attempt=name, state="finished", reason=reason, started_at=1, finished_at=2)
        self.journal[name] = update
        return update


class World(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.leader = Leader()
        self.supervisor = Supervisor()
        self.new_agent()
        self.connect()

    def new_agent(self) -> None:
        self.machine = AgentMachine()
        self.preparing: dict[str, int] = {}
        self.link: tuple[deque[on.Event], deque[out.Effect]] | None = None
        self.greeted = False  # the leader has read Hello, before which it orders nothing
        self.pipe: tuple[deque[on.Event], deque[out.Effect]] | None = None

    def tell(self, *events: on.Event) -> None:
        for event in events:
            for effect in self.machine.handle(event, self.now):
                self.perform(effect)

    def perform(self, effect: out.Effect) -> None:
        match effect:
            case out.SendHello() | out.SendReport():
                assert self.link is not None, "said something without a link"
                self.link[1].append(effect)
            case out.DropLink():
                if self.link is not None:
                    self.close_link()
            case out.Prepare():
                for name, index, _ in effect.elements:
                    assert name not in self.preparing, "prepared twice at the same time"
                    self.preparing[name] = index
            case out.CancelPrepare():
                del self.preparing[effect.attempt]
            case _:
                assert self.pipe is not None, "spoke to a supervisor that is away"
                self.pipe[1].append(effect)

    # --- orders and faults of the leader ---
    @rule()
    def order(self) -> None:
        index = len(self.leader.ordered)
        self.leader.ordered.append(index)
        if self.greeted:
            self.link[0].append(on.Start(self.leader.term, "job1", 0, ((index, 1),)))

    @precondition(lambda self: self.leader.ordered)
    @rule(data=st.data(), grace_ms=st.sampled_from([0, 1_000]))
    def order_stop(self, data: st.DataObject, grace_ms: int) -> None:
        index = data.draw(st.sampled_from(self.leader.ordered))
        self.leader.stopped.add(index)
        if self.greeted and name_of(index) not in self.leader.ended:
            self.link[0].append(on.Stop(self.leader.term, name_of(index), "cancelled", grace_ms))

    @precondition(lambda self: self.link is not None and self.link[1])
    @rule(lost=st.booleans())
    def leader_reads(self, lost: bool) -> None:
        """``lost``: the leader forgets a report before its commit, and keeps the link."""
        said = self.link[1].popleft()
        if isinstance(said, out.SendHello):
            self.greeted = True
            self.link[0].extend(self.leader.hello(said.instance, said.known))
        elif not lost:
            forget = self.leader.record(said.updates)
            self.link[0].append(on.Acked(self.leader.term, said.seq, forget))

    # --- the link ---
    def link_opens(self) -> None:
        self.link = (deque(), deque())
        self.tell(on.LinkOpened())

    def link_closes(self) -> None:
        if self.link is not None:
            self.close_link()

    def close_link(self) -> None:
        self.link = None
        self.greeted = False
        self.tell(on.LinkClosed())

    @precondition(lambda self: self.link is not None and self.link[0])
    @rule()
    def agent_reads_link(self) -> None:
        self.tell(self.link[0].popleft())

    @rule(late=st.booleans())
    def time_passes(self, late: bool) -> None:
        self.now += REPEAT_MS if late else 1
        self.tell(on.Tick() if late else on.Flush())

    # --- preparation ---
    @precondition(lambda self: self.preparing)
    @rule(data=st.data(), end=st.sampled_from(["plan", "plan", "plan", "failed", "declined", "slow"]))
    def preparation(self, data: st.DataObject, end: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.preparing)))
        if end == "slow":
            self.tell(on.Slow((name,)))
            return
        del self.preparing[name]
        if end == "plan":
            self.tell(on.Prepared([(name, name)]))
        elif end == "failed":
            self.tell(on.PrepareFailed((name,), "start_failed", "no"))
        else:
            self.tell(on.Declined((name,)))
            self.link_closes()

    # --- the supervisor ---
    def supervisor_connects(self) -> None:
        self.pipe = (deque(), deque())
        known = tuple(self.supervisor.journal.values())
        self.pipe[0].append(on.SupervisorUp(self.supervisor.instance, known))

    def supervisor_disconnects(self) -> None:
        if self.pipe is not None:
            self.pipe = None
            self.tell(on.SupervisorDown())

    @precondition(lambda self: self.pipe is not None and self.pipe[0])
    @rule()
    def agent_reads_pipe(self) -> None:
        self.tell(self.pipe[0].popleft())

    @precondition(lambda self: self.pipe is not None and self.pipe[1])
    @rule()
    def supervisor_reads(self) -> None:
        said = self.pipe[1].popleft()
        journal = self.supervisor.journal
        if isinstance(said, out.RunPlans):
            for name in said.plans:
                if name not in journal:
                    assert name not in self.leader.ended, f"{name} starts after its end was recorded"
                    self.supervisor.starts[name] = self.supervisor.starts.get(name, 0) + 1
                    journal[name] = AttemptUpdate(attempt=name, state="running", started_at=1)
                    self.pipe[0].append(on.Changed((journal[name],)))
        elif isinstance(said, out.StopAttempt):
            if said.attempt in journal and journal[said.attempt].state == "running":
                self.pipe[0].append(on.Changed((self.supervisor.end(said.attempt, said.reason),)))
        else:
            for name in said.attempts:
                assert name in self.leader.ended, f"{name} is forgotten and not on record"
                del journal[name]

    @rule(data=st.data())
    def container_ends(self, data: st.DataObject) -> None:
        running = [name for name, update in self.supervisor.journal.items() if update.state == "running"]
        if running:
            update = self.supervisor.end(data.draw(st.sampled_from(running)), "exited")
            if self.pipe is not None:
                self.pipe[0].append(on.Changed((update,)))

    # --- faults, and their repair ---
    @rule(fault=st.sampled_from(["link", "link", "leader", "pipe", "pipe", "agent", "agent", "machine"]))
    def fault(self, fault: str) -> None:
        match fault:
            case "link":
                self.link_closes()
            case "leader":
                self.leader.term += 1
                self.link_closes()
            case "pipe":
                self.supervisor_disconnects()
            case "agent":
                self.new_agent()
            case "machine":  # a reboot: all containers are gone, and the journal with them
                self.supervisor.journal.clear()
                self.supervisor.journals += 1
                self.new_agent()

    @rule()
    def connect(self) -> None:
        if self.pipe is None:
            self.supervisor_connects()
            self.agent_reads_pipe()
        if self.link is None:
            self.link_opens()

    @rule()
    def deliver_all(self) -> None:
        while self.pipe is not None and (self.pipe[0] or self.pipe[1]):
            self.agent_reads_pipe() if self.pipe[0] else self.supervisor_reads()
        while self.link is not None and (self.link[0] or self.link[1]):
            self.agent_reads_link() if self.link[0] else self.leader_reads(lost=False)

    # --- what always holds ---
    @invariant()
    def nothing_starts_twice(self) -> None:
        assert all(count == 1 for count in self.supervisor.starts.values())

    @invariant()
    def the_record_is_what_happened(self) -> None:
        for name, update in self.leader.ended.items():
            happened = self.supervisor.journal.get(name)
            assert happened is None or happened == update
            started = name in self.supervisor.starts
            assert started or update.reason in ("cancelled", "start_failed", "supervision_lost")

    @invariant()
    def an_ending_is_kept_until_it_is_on_record(self) -> None:
        for update in self.machine.known():
            if update.state in ENDED and update.attempt not in self.leader.ended:
                reported = self.machine.unacknowledged
                under_way = self.link is not None and len(self.link[0]) + len(self.link[1]) > 0
                assert update.attempt in reported or under_way

    def teardown(self) -> None:
        """Without further faults all comes to rest: ended, on record, forgotten."""
        for _ in range(8):
            self.settle()
        assert {name_of(index) for index in self.leader.ordered} == set(self.leader.ended)
        assert self.machine.attempt_count == 0
        assert self.supervisor.journal == {}
        self.nothing_starts_twice()

    def settle(self) -> None:
        self.connect()
        self.time_passes(late=True)
        self.time_passes(late=False)
        self.deliver_all()
        plans = [(name, name) for name in self.preparing]
        self.preparing.clear()
        self.tell(on.Prepared(plans))
        for name, update in list(self.supervisor.journal.items()):
            if update.state == "running" and self.pipe is not None:
                self.pipe[0].append(on.Changed((self.supervisor.end(name, "exited"),)))


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=250, stateful_step_count=50, deadline=None)
