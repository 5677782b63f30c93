"""The link, against a real WebSocket; the machine and the executor behind it are the real ones."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.unit.agent.leader import Leader, Line, listening

from towline import logs
from towline.agent import control
from towline.agent.artifacts import Artifacts
from towline.agent.capacity import Capacity
from towline.agent.cluster.dialing import dial_socket
from towline.agent.cluster.leasing import NodeLease
from towline.agent.executor import Executor
from towline.agent.link import Identity, Link, read_log
from towline.agent.prepare import Preparer
from towline.agent.supervision import kernel
from towline.agent.supervision.leasing.files import LeaseFile
from towline.core.agent import events as on
from towline.core.agent.machine import AgentMachine
from towline.core.commands import AttemptUpdate
from towline.core.lease import NONE
from towline.images import ImageStore
from towline.model.job import Array, TaskSpec
from towline.runtime.port import Plan
from towline.wire import messages as wire
from towline.wire.exec import CHUNK_BYTES, Data, ExecSaid

IDENTITY = Identity(
    id="node1", name="vm", build="build", boot_id="boot", labels={"rack": "1"},
    capacity=Capacity(cpu_milli=2000, memory_bytes=10, pids=3), runtimes={"process": None},
)  # fmt: skip
TASK = wire.TaskInfo(
    job="job1", task=0, job_name="flights", task_name="count", base_dir=None, input_tasks={},
    spec=TaskSpec(runtime="process", command=("true",), array=Array(first=0, last=99)),
)  # fmt: skip


class Supervisor:
    """The port to the supervisor: what was said to it."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[control.ToSupervisor] = asyncio.Queue()

    def say(self, message: control.ToSupervisor) -> None:
        self.said.put_nowait(message)

    async def plans(self) -> tuple[Plan, ...]:
        run = await self.said.get()
        assert isinstance(run, control.Run)
        return run.plans


class Agent:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.machine = AgentMachine()
        artifacts = Artifacts(home / "artifacts")
        preparer = Preparer(home, artifacts, ImageStore(home / "images"), {})
        self.executor = Executor(self.machine, preparer, artifacts)
        self.supervisor = Supervisor()
        self.end_now: str | None = None
        self.alone_s: list[float] = []
        self.link = Link(
            dial_socket(str(home / "tow.sock")), IDENTITY, str(home / "output"), self.executor, self.must_end,
            lambda theirs: theirs == "newer", lease=NodeLease(str(home)),
        )  # fmt: skip
        self.lease = LeaseFile(str(home))
        self.executor.attach(self.link, self.supervisor)
        self.journal_read = asyncio.Event()
        self.running = asyncio.create_task(self.link.run(self.journal_read))

    def must_end(self, alone_s: float) -> str | None:
        self.alone_s.append(alone_s)
        return self.end_now

    def supervised(self, *known: AttemptUpdate) -> None:
        self.executor.tell(on.SupervisorUp("journal", known))
        self.journal_read.set()


@pytest_asyncio.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    agent = Agent(tmp_path)
    yield agent
    agent.running.cancel()
    await asyncio.gather(agent.running, return_exceptions=True)
    agent.executor.close()


@pytest_asyncio.fixture
async def leader(tmp_path: Path) -> AsyncIterator[Leader]:
    async with listening(tmp_path / "tow.sock") as leader:
        yield leader


@pytest_asyncio.fixture
async def line(agent: Agent, leader: Leader) -> Line:
    agent.supervised()
    line = await leader.accept()
    await line.welcome()
    return line


def finished(attempt: str) -> AttemptUpdate:
    return AttemptUpdate(attempt=attempt, state="finished", reason="exited", exit_code=0)


def start(*indexes: int, term: int = 1) -> wire.Start:
    return wire.Start(term=term, job="job1", task=0, elements=tuple((index, 1) for index in indexes))


async def test_hello_says_who_and_what_is_known(agent: Agent, leader: Leader) -> None:
    agent.supervised(finished("job1-0-0-1"))
    hello = await (await leader.accept()).hear(wire.Hello)
    assert (hello.node, hello.name, hello.instance, hello.labels) == ("node1", "vm", "journal", {"rack": "1"})
    assert (hello.cpu_milli, hello.memory_bytes, hello.pids) == (2000, 10, 3)
    assert hello.known == (finished("job1-0-0-1"),)


async def test_an_order_becomes_plans_and_its_end_a_report(agent: Agent, line: Line) -> None:
    await line.say(TASK, start(*range(40)))
    plans = await agent.supervisor.plans()
    assert [plan.attempt for plan in plans] == [f"job1-0-{index}-1" for index in range(40)]
    updates = [finished(plan.attempt) for plan in plans]
    for update in updates:
        agent.executor.changed([update])
    report = await line.hear(wire.Report)
    assert list(report.updates) == updates, "forty ends are one report"
    await line.say(wire.Ack(term=1, seq=report.seq, forget=tuple(u.attempt for u in updates)))
    forget = await agent.supervisor.said.get()
    assert forget == control.Forget(attempts=tuple(u.attempt for u in updates))


async def test_what_was_not_acknowledged_is_said_on_the_next_link(
    agent: Agent, leader: Leader, line: Line
) -> None:
    await line.say(TASK, start(0))
    await agent.supervisor.plans()
    agent.executor.changed([finished("job1-0-0-1")])
    await line.hear(wire.Report)
    await line.close()
    again = await leader.accept()
    assert (await again.welcome()).known == (finished("job1-0-0-1"),)
    assert (await again.hear(wire.Report)).updates == (finished("job1-0-0-1"),)


async def test_a_task_never_told_of_brings_a_new_link(agent: Agent, leader: Leader, line: Line) -> None:
    await line.say(start(0))
    await line.closed()
    again = await leader.accept()
    assert (await again.welcome()).known == ()
    await again.say(TASK, start(0))
    assert len(await agent.supervisor.plans()) == 1


@pytest.mark.parametrize("frame", [b"", b"\x91\x01", wire.encode([start(0, term=0)])])
async def test_nonsense_and_old_leaders_bring_a_new_link(leader: Leader, line: Line, frame: bytes) -> None:
    await line.say_bytes(frame)
    await line.closed()
    assert (await (await leader.accept()).welcome()).known == ()


async def test_heartbeats_are_sent(agent: Agent, line: Line) -> None:
    beat = await line.hear(wire.Heartbeat)
    assert beat.sent_boottime_ms > 0
    await line.say(wire.HeartbeatAnswer(term=1, sent_boottime_ms=beat.sent_boottime_ms))
    assert (await line.hear(wire.Heartbeat)).sent_boottime_ms > beat.sent_boottime_ms
    assert agent.machine.term == 1


LEASE = wire.LeaseTimes(lease_ms=60_000, grace_ms=700)


async def test_hello_and_heartbeats_that_are_answered_renew_the_lease(agent: Agent, leader: Leader) -> None:
    before_ms = kernel.boottime_ms()
    agent.supervised()
    line = await leader.accept()
    await line.hear(wire.Hello)
    said_ms = kernel.boottime_ms()
    await line.say(wire.Welcome(version=1, build="build", term=4, heartbeat_ms=100, lease=LEASE))
    beat = await line.hear(wire.Heartbeat)  # it has taken the welcome in by now
    first = agent.lease.read()
    assert (first.term, first.grace_ms) == (4, 700)
    assert before_ms <= first.since_ms == first.until_ms - LEASE.lease_ms <= said_ms
    await line.say(wire.HeartbeatAnswer(term=4, sent_boottime_ms=beat.sent_boottime_ms))
    await line.hear(wire.Heartbeat)
    await line.hear(wire.Heartbeat)
    second = agent.lease.read()
    assert second.until_ms == beat.sent_boottime_ms + LEASE.lease_ms
    assert second.since_ms == first.since_ms
    await line.say(wire.HeartbeatAnswer(term=3, sent_boottime_ms=kernel.boottime_ms()))
    await line.closed()
    assert agent.lease.read() == second  # a deposed leader grants nothing


async def test_without_a_lease_nothing_is_noted(agent: Agent, line: Line) -> None:
    beat = await line.hear(wire.Heartbeat)
    await line.say(wire.HeartbeatAnswer(term=1, sent_boottime_ms=beat.sent_boottime_ms))
    await line.hear(wire.Heartbeat)
    assert agent.lease.read() == NONE


async def test_refused_for_now_comes_again_and_refused_for_ever_ends(agent: Agent, leader: Leader) -> None:
    agent.supervised()
    line = await leader.accept()
    await line.hear(wire.Hello)
    await line.say(wire.Refused(message="no_leader", retry_ms=1))
    line = await leader.accept()
    await line.hear(wire.Hello)
    await line.say(wire.Refused(message="this server speaks version 9"))
    assert "version 9" in await agent.running


async def test_goodbye_ends_an_agent_that_has_nothing_to_do(agent: Agent, line: Line) -> None:
    await line.say(wire.Goodbye(term=1))
    assert "nothing is left to do" in await agent.running


async def test_goodbye_leaves_an_agent_with_work_alone(agent: Agent, leader: Leader, line: Line) -> None:
    await line.say(TASK, start(0), wire.Goodbye(term=1))
    await agent.supervisor.plans()
    await line.close()
    hello = await (await leader.accept()).welcome()
    assert [update.state for update in hello.known] == ["preparing"]


async def test_a_newer_build_of_the_program_ends_the_agent(agent: Agent, leader: Leader) -> None:
    agent.supervised()
    await (await leader.accept()).welcome(build="newer")
    assert "another build" in await agent.running


async def test_without_a_server_it_asks_whether_to_end(agent: Agent) -> None:
    agent.supervised()
    agent.end_now = "no server"
    assert await agent.running == "no server"
    assert agent.alone_s


async def test_it_waits_for_the_journal(agent: Agent, leader: Leader) -> None:
    accepted = asyncio.create_task(leader.accept())
    for _ in range(100):
        await asyncio.sleep(0)
    assert not accepted.done()
    agent.supervised()
    await (await accepted).welcome()


async def test_output_is_read(agent: Agent, line: Line) -> None:
    folder = agent.home / "output" / "job1-0-0-1"
    folder.mkdir(parents=True)
    (folder / "stdout").write_bytes(b"hello\nworld\n")
    await line.say(TASK, start(0))
    await agent.supervisor.plans()
    order = wire.ReadLog(request=7, attempt="job1-0-0-1", stream="stdout", offset=6, limit=3)
    await line.say(order)
    chunk = await line.hear(wire.LogChunk)
    assert (chunk.request, chunk.offset, chunk.data, chunk.end) == (7, 6, b"wor", False)
    await line.say(wire.ReadLog(request=8, attempt="job1-0-0-1", stream="stdout", offset=-3, limit=9))
    chunk = await line.hear(wire.LogChunk)
    assert (chunk.offset, chunk.data, chunk.end) == (9, b"ld\n", False), "it runs: more may come"
    agent.executor.changed([finished("job1-0-0-1")])
    await line.say(wire.ReadLog(request=9, attempt="job1-0-0-1", stream="stdout", offset=9, limit=9))
    assert (await line.hear(wire.LogChunk)).end


@pytest.mark.parametrize("attempt", ["../secret", "a/b", "", "a" * 300, "x\n"])
def test_output_of_what_is_no_attempt_is_refused(tmp_path: Path, attempt: str) -> None:
    order = wire.ReadLog(request=1, attempt=attempt, stream="stdout", offset=0, limit=10)
    chunk = read_log(order, str(tmp_path), live=False)
    assert chunk.error is not None and "no attempt's id" in chunk.error


def test_output_of_an_attempt_that_printed_nothing_is_empty(tmp_path: Path) -> None:
    assert logs.size(str(tmp_path), "stdout") == 0
    for offset in (0, -10):
        order = wire.ReadLog(request=1, attempt="a", stream="stderr", offset=offset, limit=10)
        chunk = read_log(order, str(tmp_path), live=False)
        assert (chunk.data, chunk.offset, chunk.end, chunk.error) == (b"", 0, True, None)


async def test_a_flood_of_a_further_command_does_not_delay_what_is_urgent(agent: Agent, line: Line) -> None:
    flood = [ExecSaid(exec=1, said=Data(1, bytes(CHUNK_BYTES))) for _ in range(400)]
    for said in flood:
        agent.link.say_in_time(said)
    await asyncio.sleep(0)  # as much of it is on its way as the socket takes
    agent.executor.changed([finished("job1-0-0-1")])
    before = 0
    while isinstance(await line.hear(ExecSaid | wire.Report), ExecSaid):
        before += 1
    assert before < len(flood) / 2
    for _ in range(len(flood) - before):
        assert await line.hear(ExecSaid) == flood[0]


async def test_each_try_in_vain_lengthens_the_pauses_and_a_welcome_ends_that(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds: list[float] = []
    monkeypatch.setattr(random, "uniform", lambda _, bound: bounds.append(bound) or 0.0)
    agent.supervised()
    async with asyncio.timeout(30):
        while len(bounds) < 5:  # noqa: ASYNC110 - the link tells nobody
            await asyncio.sleep(0.001)
        async with listening(tmp_path / "tow.sock") as leader:
            line = await leader.accept()
            await line.welcome()
            await line.hear(wire.Heartbeat)
            tries = len(bounds)
        while len(bounds) <= tries:  # noqa: ASYNC110 - the link tells nobody
            await asyncio.sleep(0.001)
    assert bounds[:5] == [0.05, 0.1, 0.2, 0.4, 0.5]
    assert bounds[tries] == 0.05
