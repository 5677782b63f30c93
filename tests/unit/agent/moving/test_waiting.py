"""The executor around artifacts that move: who starts when, and what is told of whom."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from tests.unit.agent.test_executor import Node, finished, name
from tests.unit.agent.test_executor import node as node

from towline.agent import control
from towline.agent.moving.inputs import Inputs
from towline.agent.moving.uploads import Uploads
from towline.agent.prepare import Template, Unprepared
from towline.core.agent import events as on
from towline.core.commands import AttemptUpdate, attempt_key
from towline.wire import messages as wire


class FakeInputs:
    """Those of an element are there once its index is in ``there``; ``missing`` never will be."""

    def __init__(self) -> None:
        self.gates: dict[int, asyncio.Event] = {}
        self.missing: set[int] = set()

    def gate(self, index: int) -> asyncio.Event:
        return self.gates.setdefault(index, asyncio.Event())

    async def ready(self, template: Template, attempt: str, index: int) -> None:
        assert attempt_key(attempt)[2] == index
        await self.gate(index).wait()
        if index in self.missing:
            raise Unprepared("its input is gone", "artifacts_failed")


class FakeUploads:
    """Holds all that ends."""

    def __init__(self) -> None:
        self.held: list[str] = []

    def hold(self, update: AttemptUpdate) -> AttemptUpdate:
        self.held.append(update.attempt)
        return AttemptUpdate(attempt=update.attempt, state="running")

    def stop(self, attempt: str, reason: str) -> bool:
        return attempt in self.held


@pytest.fixture
def inputs(node: Node) -> FakeInputs:
    made = FakeInputs()
    node.executor.inputs = cast("Inputs", made)
    node.executor.templates.add(_info())
    return made


def _info() -> Any:
    from towline.model.job import Array, TaskSpec

    spec = TaskSpec(runtime="process", command=("true",), array=Array(last=99), inputs={"make": "in"})
    return wire.TaskInfo(
        job="job1", task=0, job_name="", task_name="t", spec=spec, base_dir=None,
        input_tasks={"make": (1, 0, 0, False)},
    )  # fmt: skip


async def started(node: Node) -> list[str]:
    return [plan.attempt for plan in await node.plans()]


async def test_each_element_starts_when_its_own_input_is_there(node: Node, inputs: FakeInputs) -> None:
    node.start(0, 1)
    inputs.gate(1).set()
    assert await started(node) == [name(1)]
    for _ in range(10):
        await asyncio.sleep(0)
    node.start(2)  # which comes while another one still waits
    inputs.gate(2).set()
    assert await started(node) == [name(2)]
    inputs.gate(0).set()
    assert await started(node) == [name(0)]
    node.start(3)  # when nothing waits any more
    inputs.gate(3).set()
    assert await started(node) == [name(3)]


async def test_an_input_that_is_not_to_be_had_ends_its_own_attempt(node: Node, inputs: FakeInputs) -> None:
    inputs.missing = {0}
    node.start(0, 1)
    inputs.gate(0).set()
    while True:
        (update,) = (await node.wires.next(wire.Report)).updates
        if update.state == "finished":
            break
    assert (update.attempt, update.reason, update.message) == (
        name(0),
        "artifacts_failed",
        "its input is gone",
    )
    inputs.gate(1).set()
    assert await started(node) == [name(1)]


async def test_one_that_is_cancelled_while_its_input_comes_never_starts(
    node: Node, inputs: FakeInputs
) -> None:
    node.start(0, 1)
    await asyncio.sleep(0)
    node.executor.tell(on.Stop(1, name(0), "cancelled", 0))
    inputs.gate(0).set()
    inputs.gate(1).set()
    assert await started(node) == [name(1)]


async def test_what_is_held_is_told_as_running_until_it_is_released(node: Node) -> None:
    uploads = FakeUploads()
    node.executor.uploads = cast("Uploads", uploads)
    node.task()
    node.start(0)
    await node.plans()
    node.executor.changed([finished(0)])
    assert [u.state for u in (await node.wires.next(wire.Report)).updates] == ["running"]
    assert node.machine.is_live(name(0))
    node.executor.released(finished(0))
    assert (await node.wires.next(wire.Report)).updates == (finished(0),)


async def test_a_stop_of_one_that_is_held_does_not_reach_the_supervisor(node: Node) -> None:
    uploads = FakeUploads()
    node.executor.uploads = cast("Uploads", uploads)
    node.task()
    node.start(0, 1)
    await node.plans()
    node.executor.changed([finished(0), AttemptUpdate(attempt=name(1), state="running")])
    node.executor.tell(on.Stop(1, name(0), "cancelled", 0), on.Stop(1, name(1), "cancelled", 0))
    stop = await node.wires.next(control.StopAttempt)
    assert stop.attempt == name(1)
