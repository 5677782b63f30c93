"""The executor: what it tells server and supervisor, and when; everything else in it is real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_asyncio

from towline.agent import control
from towline.agent.artifacts import Artifacts
from towline.agent.executor import BATCH_ABOVE, Executor
from towline.agent.prepare import Preparer, Template, Unprepared
from towline.core.agent import events as on
from towline.core.agent.machine import AgentMachine
from towline.core.commands import AttemptUpdate
from towline.images import ImageStore
from towline.model.job import Array, TaskSpec
from towline.runtime.port import Plan
from towline.wire import messages as wire

M = TypeVar("M")


class Wires:
    """Both ports of the executor: what was said on them, in order."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.news = asyncio.Event()

    def say(self, message: object) -> None:
        self.said.append(message)
        self.news.set()

    def hello(self, instance: str, known: tuple[AttemptUpdate, ...]) -> None:
        self.say(("hello", instance, known))

    def drop(self, why: str) -> None:
        self.say(("drop", why))

    async def next(self, kind: type[M]) -> M:
        """The first message of this kind, taken out; waits for it."""
        while True:
            for message in self.said:
                if isinstance(message, kind):
                    self.said.remove(message)
                    return message
            self.news.clear()
            await self.news.wait()


class SlowPreparer(Preparer):
    """The real one, after ``gate`` is opened: as if an image had to be unpacked first."""

    gate: asyncio.Event
    begun = 0
    crash: Exception | None = None

    def make_ready_now(self, template: Template) -> bool:
        return not hasattr(self, "gate") and super().make_ready_now(template)

    async def make_ready(self, template: Template) -> None:
        self.begun += 1
        if hasattr(self, "gate"):
            await self.gate.wait()
        if self.crash is not None:
            raise self.crash
        await super().make_ready(template)


class Node:
    def __init__(self, folder: Path) -> None:
        artifacts = Artifacts(folder / "artifacts")
        self.folder = folder
        self.preparer = SlowPreparer(folder, artifacts, ImageStore(folder / "images"), {})
        self.machine = AgentMachine()
        self.executor = Executor(self.machine, self.preparer, artifacts, clock_ms=lambda: 1_000)
        self.wires = Wires()
        self.executor.attach(self.wires, self.wires)
        self.executor.tell(on.SupervisorUp("journal", ()), on.LinkOpened(), on.Welcomed(1))
        assert self.wires.said.pop() == ("hello", "journal", ())

    def task(self, **fields: object) -> None:
        spec = TaskSpec(**{"runtime": "process", "command": ("true",), "array": Array(last=99), **fields})  # type: ignore[arg-type]
        self.executor.templates.add(wire.TaskInfo(
            job="job1", task=0, job_name="", task_name="t", spec=spec, base_dir=None, input_tasks={},
        ))  # fmt: skip

    def start(self, *indexes: int) -> None:
        self.executor.tell(on.Start(1, "job1", 0, [(index, 1) for index in indexes]))

    async def plans(self) -> tuple[Plan, ...]:
        return (await self.wires.next(control.Run)).plans


def name(index: int) -> str:
    return f"job1-0-{index}-1"


def finished(index: int, exit_code: int = 0) -> AttemptUpdate:
    return AttemptUpdate(attempt=name(index), state="finished", reason="exited", exit_code=exit_code)


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    yield node
    node.executor.close()


async def test_forty_starts_are_one_message_to_the_supervisor(node: Node) -> None:
    node.task()
    node.start(*range(40))
    assert [plan.attempt for plan in await node.plans()] == [name(index) for index in range(40)]


@pytest.mark.parametrize(("policy", "lease_ms"), [("keep", [0, 0]), ("wait", [0, 0]), ("stop", [5, 9])])
async def test_what_lives_by_the_lease_keeps_that_of_its_order(
    node: Node, policy: str, lease_ms: list[int]
) -> None:
    """However long its preparation takes: in between the lease may have ended and begun again."""
    node.preparer.gate = asyncio.Event()
    node.task(on_disconnect=policy)
    for at, since_ms in enumerate((5, 9)):
        node.executor.lease_ms = lambda since_ms=since_ms: since_ms
        node.start(at)
    node.executor.lease_ms = lambda: 13
    node.preparer.gate.set()
    assert [plan.lease_ms for plan in await node.plans()] == lease_ms


async def test_an_end_is_reported_in_the_same_turn_while_little_runs(node: Node) -> None:
    node.task()
    node.start(*range(BATCH_ABOVE))
    node.executor.changed([finished(0)])
    assert node.wires.said[-1:] != [wire.Report(seq=1, updates=(finished(0),))]
    assert await node.wires.next(wire.Report) == wire.Report(seq=1, updates=(finished(0),))


async def test_ends_are_collected_while_much_runs(node: Node) -> None:
    node.task()
    node.start(*range(BATCH_ABOVE + 1))
    node.executor.changed([finished(0)])
    for _ in range(3):  # turns of the loop, in which a report that need not wait would have left
        await asyncio.sleep(0)
    node.executor.changed([finished(1)])
    assert (await node.wires.next(wire.Report)).updates == (finished(0), finished(1))


async def test_artifacts_are_in_place_before_the_end_is_told(node: Node) -> None:
    node.task()
    node.start(3)
    (plan,) = await node.plans()
    Path(plan.out, "text").write_text("hello")  # noqa: ASYNC240
    node.executor.changed([finished(3)])
    assert (node.folder / "artifacts/job1/0/3/text").read_text() == "hello"


async def test_elements_of_a_task_wait_for_its_image_together(node: Node) -> None:
    node.preparer.gate = asyncio.Event()
    node.task()
    node.start(0, 1)
    node.start(2)
    await asyncio.sleep(0)
    node.preparer.gate.set()
    assert [plan.attempt for plan in await node.plans()] == [name(0), name(1), name(2)]
    assert node.preparer.begun == 1
    node.start(3)
    assert len(await node.plans()) == 1
    assert node.preparer.begun == 1, "it is ready now"


async def test_a_slow_preparation_is_told(node: Node) -> None:
    node.preparer.gate = asyncio.Event()
    node.task()
    node.start(0)
    (update,) = (await node.wires.next(wire.Report)).updates
    assert (update.attempt, update.state) == (name(0), "preparing")


async def test_a_missing_image_ends_all_that_waited_for_it(node: Node) -> None:
    node.task(runtime="oci", image="oci:/nowhere:1")
    node.start(0, 1)
    updates = (await node.wires.next(wire.Report)).updates
    assert [(u.attempt, u.state, u.reason) for u in updates] == [
        (name(0), "finished", "image_not_found"),
        (name(1), "finished", "image_not_found"),
    ]
    assert updates[0].message is not None and "/nowhere" in updates[0].message


async def test_an_error_of_our_own_ends_the_attempt_and_not_the_agent(node: Node) -> None:
    node.preparer.gate = asyncio.Event()
    node.preparer.gate.set()
    node.preparer.crash = RuntimeError("boom")
    node.task()
    node.start(0)
    (update,) = (await node.wires.next(wire.Report)).updates
    assert update.reason == "start_failed"
    assert update.message == "Towline met an error of its own: RuntimeError('boom')"


async def test_a_stop_while_preparing_cancels_it_and_the_next_start_begins_anew(node: Node) -> None:
    node.preparer.gate = asyncio.Event()
    node.task()
    node.start(0)
    await asyncio.sleep(0)
    node.executor.tell(on.Stop(1, name(0), "cancelled", 0))
    node.start(1)
    node.preparer.gate.set()
    assert [plan.attempt for plan in await node.plans()] == [name(1)]
    assert node.preparer.begun == 2
    (update,) = (await node.wires.next(wire.Report)).updates
    assert (update.attempt, update.state, update.reason) == (name(0), "finished", "cancelled")


async def test_a_stop_of_one_leaves_the_others_waiting(node: Node) -> None:
    node.preparer.gate = asyncio.Event()
    node.task()
    node.start(0, 1)
    await asyncio.sleep(0)
    node.executor.tell(on.Stop(1, name(0), "cancelled", 0))
    node.preparer.gate.set()
    assert [plan.attempt for plan in await node.plans()] == [name(1)]
    assert node.preparer.begun == 1


async def test_a_task_never_told_of_is_declined(node: Node) -> None:
    node.start(0)
    assert await node.wires.next(tuple) == (
        "drop",
        "the server ordered task 0 of job job1 without telling of it",
    )
    assert node.machine.known() == ()


async def test_stop_and_forget_reach_the_supervisor(node: Node) -> None:
    node.task()
    node.start(0)
    await node.plans()
    node.executor.tell(on.Stop(1, name(0), "cancelled", 9))
    stop = await node.wires.next(control.StopAttempt)
    assert stop == control.StopAttempt(attempt=name(0), reason="cancelled", grace_ms=9)
    node.executor.changed([finished(0)])
    report = await node.wires.next(wire.Report)
    node.executor.tell(on.Acked(1, report.seq, (name(0),)))
    assert await node.wires.next(control.Forget) == control.Forget(attempts=(name(0),))


async def test_what_cannot_be_prepared_has_a_log_before_its_end_is_told(node: Node) -> None:
    kept: list[tuple[tuple[str, ...], tuple[tuple[int, str], ...]]] = []
    news: list[tuple[str, str]] = []
    node.executor.keep_log = lambda names, lines: kept.append((tuple(names), tuple(lines)))
    node.executor.news = lambda updates: news.extend((update.attempt, update.state) for update in updates)
    node.preparer.gate = asyncio.Event()
    node.preparer.crash = Unprepared("no such image", "image_not_found", ((5, "asking the registry: x:1"),))
    node.task()
    node.start(0, 1)
    node.preparer.gate.set()
    (report,) = [await node.wires.next(wire.Report)]
    assert {update.reason for update in report.updates} == {"image_not_found"}
    lines = ((5, "asking the registry: x:1"), (1_000, "it never started: no such image"))
    assert kept == [((name(0), name(1)), lines)]
    assert news == [(name(0), "finished"), (name(1), "finished")]
