"""Real containers through the agent: mounts, inputs, artifacts, and what cannot start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.containers import build_busybox_image
from tests.integration.test_agent import PATIENCE_S, SMALL, AgentProcess, retire
from tests.unit.agent.leader import Line, listening

from towline.core.commands import AttemptUpdate
from towline.model.job import Array, Mount, Resources, TaskSpec
from towline.wire import messages as wire

pytestmark = pytest.mark.containers


class Containers:
    """Runs tasks on the agent, one after another."""

    def __init__(self, home: Path, image: str, line: Line) -> None:
        self.home = home
        self.image = image
        self._line = line
        self._tasks = 0

    async def run(
        self, script: str, needed: dict[str, tuple[int, int, int, bool]] | None = None, **fields: Any
    ) -> list[AttemptUpdate]:
        """The endings of all elements of a new task, by index."""
        task, self._tasks = self._tasks, self._tasks + 1
        settings = {"image": self.image, "command": ("sh", "-c", script), "resources": SMALL, **fields}
        spec = TaskSpec(**settings)
        info = wire.TaskInfo(
            job="job1", task=task, job_name="job", task_name="task", spec=spec, base_dir=str(self.home),
            input_tasks=needed or {},
        )  # fmt: skip
        count = (spec.array or Array()).size
        elements = tuple((index, 1) for index in range(count))
        await self._line.say(info, wire.Start(term=1, job="job1", task=task, elements=elements))
        ended: dict[str, AttemptUpdate] = {}
        while len(ended) < count:
            report = await asyncio.wait_for(self._line.hear(wire.Report), PATIENCE_S)
            ended |= {u.attempt: u for u in report.updates if u.state == "finished"}
            await self._line.say(wire.Ack(term=1, seq=report.seq, forget=tuple(ended)))
        return [ended[f"job1-{task}-{index}-1"] for index in range(count)]

    async def output(self, attempt: str) -> bytes:
        await self._line.say(
            wire.ReadLog(request=1, attempt=attempt, stream="stdout", offset=0, limit=10_000)
        )
        return (await self._line.hear(wire.LogChunk)).data


@pytest_asyncio.fixture
async def containers(tmp_path: Path) -> AsyncIterator[Containers]:
    image = await asyncio.to_thread(build_busybox_image, tmp_path / "image")
    agent = AgentProcess(tmp_path)
    async with listening(tmp_path / "tow.sock") as leader:
        agent.start()
        line = await leader.accept()
        assert (await line.welcome()).runtimes["oci"] is None
        yield Containers(tmp_path, image, line)
        await line.close()
        leader.forget()
        await retire(agent, leader)


async def test_artifacts_of_an_array_are_the_next_tasks_inputs(containers: Containers) -> None:
    ended = await containers.run("echo part $TOW_INDEX > $TOW_OUT/text", array=Array(last=2))
    assert [update.exit_code for update in ended] == [0, 0, 0]
    assert all((update.image_digest or "").startswith("sha256:") for update in ended)
    (update,) = await containers.run(
        "ls /in/parts; cat /in/parts/*/text; echo no > /in/parts/0/text",
        needed={"parts": (0, 0, 2, True)},
        inputs={"parts": "/in/parts"},
    )
    assert update.exit_code == 1, "inputs are for reading only"
    assert await containers.output(update.attempt) == b"0\n1\n2\npart 0\npart 1\npart 2\n"


async def test_a_mount_below_the_jobs_folder_is_shown(containers: Containers) -> None:
    data = containers.home / "data"
    data.mkdir()
    (data / "text").write_text("flights")
    (update,) = await containers.run(
        "cat /data/text; echo no > /data/text",
        mounts=(Mount(source=str(data), target="/data", readonly=True),),
    )
    assert update.exit_code == 1, "it is mounted for reading only"
    assert await containers.output(update.attempt) == b"flights"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mounts": (Mount(source="/etc", target="/data"),)}, "The mount of /etc is refused"),
        ({"mounts": (Mount(source="/nowhere", target="/data"),)}, "there is no /nowhere on this node"),
        ({"command": ("nope",)}, "no program 'nope' in the image"),
    ],
)
async def test_what_cannot_start_says_why(
    containers: Containers, fields: dict[str, Any], message: str
) -> None:
    (update,) = await containers.run("true", **fields)
    assert (update.reason, update.exit_code) == ("start_failed", None)
    assert update.message is not None and message in update.message


async def test_a_container_over_its_memory_is_killed_and_says_so(containers: Containers) -> None:
    small = Resources(cpu_milli=500, memory_bytes=16 * 1024**2)
    (update,) = await containers.run("x=0123456789; while :; do x=$x$x; done", resources=small)
    assert update.reason == "oom_killed"
