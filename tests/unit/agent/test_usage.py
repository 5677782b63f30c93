"""What an agent answers about what runs on its node."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from towline.agent.capacity import NodeUsage
from towline.core.agent import events as on
from towline.core.agent.machine import AgentMachine
from towline.core.commands import AttemptUpdate
from towline.model.states import AttemptState
from towline.wire.usage import ReadUsage, UsageAnswer


def running(*names: str) -> AgentMachine:
    machine = AgentMachine()
    known = [AttemptUpdate(attempt=name, state=AttemptState.RUNNING, started_at=1000) for name in names]
    known.append(AttemptUpdate(attempt="j1-0-9-1", state=AttemptState.PREPARING))
    machine.handle(on.SupervisorUp("instance", tuple(known)), 2000)
    return machine


async def answered(usage: NodeUsage, order: ReadUsage) -> UsageAnswer:
    said: asyncio.Queue[UsageAnswer] = asyncio.Queue()
    usage.answer(order, said.put_nowait)
    return await said.get()


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ({}, ["j1-0-0-1", "j1-0-1-2", "j1-1-0-1", "j10-0-0-1"]),
        ({"job": "j1"}, ["j1-0-0-1", "j1-0-1-2", "j1-1-0-1"]),
        ({"job": "j1", "task": 0}, ["j1-0-0-1", "j1-0-1-2"]),
        ({"job": "j1", "task": 0, "index": 1}, ["j1-0-1-2"]),
        ({"job": "j2"}, []),
    ],
)
async def test_what_runs_of_what_was_asked_for(
    tmp_path: Path, order: dict[str, object], expected: list[str]
) -> None:
    usage = NodeUsage(tmp_path, running("j1-0-0-1", "j1-0-1-2", "j1-1-0-1", "j10-0-0-1"))
    answer = await answered(usage, ReadUsage(request=7, **order))
    assert answer.request == 7
    assert [attempt.attempt for attempt in answer.attempts] == expected


async def test_what_cannot_be_found_is_unknown_and_its_output_is_counted(tmp_path: Path) -> None:
    output = tmp_path / "output" / "j1-0-0-1"
    output.mkdir(parents=True)
    (output / "stderr").write_bytes(b"12345")
    (attempt,) = (await answered(NodeUsage(tmp_path, running("j1-0-0-1")), ReadUsage(request=1))).attempts
    assert (attempt.cpu_us, attempt.memory_bytes, attempt.pids) == (None, None, None)
    assert attempt.output_bytes == 5
    assert attempt.ran_ms is not None
    assert attempt.ran_ms > 0


async def test_what_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError("no /proc")

    monkeypatch.setattr("towline.agent.capacity.machine_load", broken)
    answer = await answered(NodeUsage(tmp_path, running("j1-0-0-1")), ReadUsage(request=1))
    assert answer.error == "it cannot be read: no /proc"
