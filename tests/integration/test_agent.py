"""A real agent process with its keeper and supervisor, and a server whose words the test chooses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
import pytest_asyncio
from tests.unit.agent.leader import Leader, Line, listening

from towline.agent.keeper import lock_is_free
from towline.core.commands import AttemptUpdate, attempt_id
from towline.model.job import Array, Resources, TaskSpec
from towline.wire import messages as wire

PATIENCE_S = 60
SMALL = Resources(cpu_milli=10, memory_bytes=1024**2)


class AgentProcess:
    """``python -m towline.launch agent`` on a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.node = home / "node"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **environ: str) -> None:
        argv = [sys.executable, "-m", "towline.launch", "agent", "--home", str(self.home)]
        with (self.home / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(argv, env={**os.environ, **environ}, stdout=log, stderr=log)

    async def end(self, number: signal.Signals | None = None) -> int:
        """Its exit status, after it was sent this signal, or has ended by itself."""
        assert self.process is not None
        if number is not None:
            self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, PATIENCE_S)

    def keeper_lives(self) -> bool:
        """Whether the keeper's lock is held."""
        return not lock_is_free(os.fspath(self.node))


class Work:
    """Elements of one task of one job, as a leader would have them placed."""

    def __init__(self, script: str, count: int, job: str = "job1") -> None:
        self.job = job
        self.indexes = range(count)
        spec = TaskSpec(
            runtime="process", command=("sh", "-c", script), array=Array(last=count - 1), resources=SMALL
        )
        self.info = wire.TaskInfo(
            job=job, task=0, job_name="job", task_name="task", spec=spec, base_dir=None, input_tasks={}
        )
        self.ended: dict[str, AttemptUpdate] = {}

    def name(self, index: int) -> str:
        return attempt_id((self.job, 0, index, 1))

    def orders(self, known: Iterable[AttemptUpdate] = ()) -> list[wire.FromServer]:
        """What is not on record as ended, and not known to the node."""
        names = {update.attempt for update in known} | set(self.ended)
        missing = tuple((index, 1) for index in self.indexes if self.name(index) not in names)
        return [self.info, wire.Start(term=1, job=self.job, task=0, elements=missing)]

    def record(self, updates: Iterable[AttemptUpdate]) -> tuple[str, ...]:
        for update in updates:
            if update.state in ("finished", "lost"):
                assert self.ended.setdefault(update.attempt, update) == update, "one end, told twice"
        return tuple(update.attempt for update in updates if update.attempt in self.ended)

    async def serve(self, line: Line, until: int) -> None:
        """Answer as a leader does until so many have ended."""
        hello = await line.welcome()
        await line.say(wire.Ack(term=1, seq=0, forget=self.record(hello.known)))
        await line.say(*self.orders(hello.known))
        while len(self.ended) < until:
            report = await line.hear(wire.Report)
            forget = self.record(report.updates)
            await line.say(wire.Ack(term=1, seq=report.seq, forget=forget))


@pytest_asyncio.fixture
async def agent(tmp_path: Path) -> AsyncIterator[AgentProcess]:
    """Afterwards nothing of ours is left: what runs was ended by the test, the rest ends when told."""
    agent = AgentProcess(tmp_path)
    yield agent
    async with listening(tmp_path / "tow.sock") as leader:
        if agent.process is None or agent.process.poll() is not None:
            agent.start()
        await retire(agent, leader)
    assert not agent.keeper_lives()


async def retire(agent: AgentProcess, leader: Leader) -> None:
    """Stop and acknowledge everything, then say goodbye: agent, supervisor and keeper end."""
    line = await asyncio.wait_for(leader.accept(), PATIENCE_S)
    hello = await line.welcome(term=99)
    left = {update.attempt for update in hello.known}
    for update in hello.known:
        await line.say(wire.Stop(term=99, attempt=update.attempt, reason="cancelled", grace_ms=0))
    while left:
        report = await line.hear(wire.Report)
        gone = tuple(u.attempt for u in report.updates if u.state in ("finished", "lost"))
        await line.say(wire.Ack(term=99, seq=report.seq, forget=gone))
        left -= set(gone)
    await line.say(wire.Goodbye(term=99))
    assert await agent.end() == 0


@pytest_asyncio.fixture
async def leader(agent: AgentProcess) -> AsyncIterator[Leader]:
    async with listening(agent.home / "tow.sock") as leader:
        yield leader


def lines(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


async def test_elements_run_and_their_output_and_artifacts_are_kept(
    agent: AgentProcess, leader: Leader
) -> None:
    work = Work("echo out $TOW_INDEX; echo $TOW_INDEX > $TOW_OUT/text; exit $((TOW_INDEX == 3))", 20)
    agent.start()
    line = await leader.accept()
    await work.serve(line, until=20)
    assert {u.exit_code for name, u in work.ended.items() if name != work.name(3)} == {0}
    assert work.ended[work.name(3)].exit_code == 1
    kept = {path.parent.name: path.read_text() for path in agent.node.glob("artifacts/job1/0/*/text")}
    assert kept == {str(index): f"{index}\n" for index in work.indexes if index != 3}
    await line.say(
        wire.ReadLog(request=1, attempt=work.name(7), stream="stdout", offset=0, limit=100),
    )
    chunk = await line.hear(wire.LogChunk)
    assert (chunk.data, chunk.end) == (b"out 7\n", True)


async def test_an_agent_killed_at_any_moment_loses_nothing_and_starts_nothing_twice(
    agent: AgentProcess, leader: Leader
) -> None:
    started = agent.home / "started"
    work = Work(f"echo $TOW_INDEX >> {started}", 60)
    for until in (1, 20, 40):
        agent.start()
        await work.serve(await leader.accept(), until=until)
        await agent.end(signal.SIGKILL)
        leader.forget()
    agent.start()
    await work.serve(await leader.accept(), until=60)
    assert sorted(lines(started), key=int) == [str(index) for index in work.indexes]
    assert {update.exit_code for update in work.ended.values()} == {0}


async def test_what_runs_while_no_agent_lives_is_adopted(agent: AgentProcess, leader: Leader) -> None:
    fifo = agent.home / "fifo"
    os.mkfifo(fifo)
    work = Work(f"read code < {fifo}; exit $code", 1)
    agent.start()
    line = await leader.accept()
    hello = await line.welcome()
    await line.say(*work.orders(hello.known))
    running = await line.hear(wire.Report)
    assert [update.state for update in running.updates] == ["running"]
    await agent.end(signal.SIGTERM)
    await asyncio.to_thread(fifo.write_text, "7\n")
    leader.forget()
    agent.start()
    await work.serve(await leader.accept(), until=1)
    assert work.ended[work.name(0)].exit_code == 7


async def test_a_stop_ends_what_runs(agent: AgentProcess, leader: Leader) -> None:
    work = Work("sleep 600", 1)
    agent.start()
    line = await leader.accept()
    hello = await line.welcome()
    await line.say(*work.orders(hello.known))
    await line.hear(wire.Report)
    await line.say(wire.Stop(term=1, attempt=work.name(0), reason="cancelled", grace_ms=10_000))
    (update,) = (await line.hear(wire.Report)).updates
    assert (update.state, update.reason, update.signal) == ("finished", "cancelled", signal.SIGTERM)


async def test_a_supervisor_that_is_killed_is_found_again(agent: AgentProcess, leader: Leader) -> None:
    started = agent.home / "started"
    fifo = agent.home / "fifo"
    os.mkfifo(fifo)
    work = Work(f"echo $TOW_INDEX >> {started}; read code < {fifo}; exit 5", 1)
    agent.start()
    line = await leader.accept()
    hello = await line.welcome()
    await line.say(*work.orders(hello.known))
    await line.hear(wire.Report)
    os.kill(supervisor_pid(agent.node), signal.SIGKILL)
    await asyncio.to_thread(fifo.write_text, "x\n")
    (update,) = (await line.hear(wire.Report)).updates
    assert (update.state, update.exit_code) == ("finished", 5)
    assert lines(started) == ["0"]


def supervisor_pid(node: Path) -> int:
    """The process whose command line is a supervisor's of this node."""
    wanted = b"towline.agent.supervisor\0" + os.fsencode(node) + b"\0"
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "cmdline").read_bytes():
                return int(folder.name)
    raise AssertionError("no supervisor runs")


async def test_a_second_agent_ends_at_once(agent: AgentProcess, leader: Leader) -> None:
    agent.start()
    await (await leader.accept()).welcome()
    second = AgentProcess(agent.home)
    second.start()
    assert await second.end() == 0
    assert "another agent serves this node" in (agent.home / "agent.log").read_text()


async def test_without_a_server_it_ends_and_takes_supervisor_and_keeper_along(agent: AgentProcess) -> None:
    agent.start(TOWLINE_IDLE_S="0.2")
    assert await agent.end() == 0
    assert not agent.keeper_lives()


@pytest.mark.parametrize("setting", ["TOWLINE_NODE_CPU", "TOWLINE_NODE_MEMORY"])
async def test_a_wrong_setting_is_named(agent: AgentProcess, setting: str) -> None:
    agent.start(**{setting: "none"})
    assert await agent.end() == 2
    assert setting in (agent.home / "agent.log").read_text()
