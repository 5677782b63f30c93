"""Towline's own event log as a workload."""

from __future__ import annotations

import json
from typing import Any

import pytest

from towline.errors import InvalidDocument
from towline.simulation.described.policies import Setup
from towline.simulation.replay.engine import replay
from towline.simulation.replay.report import report
from towline.simulation.traces.exported import Exported, parse_export

NODE = {
    "id": "n1", "name": "n1", "state": "ready", "cpu": 2.0, "cpu_free": 2.0, "memory_bytes": 2**34,
    "memory_free_bytes": 2**34, "labels": {}, "runtimes": {"process": None},
    "gpus": [{"id": "0", "model": "T4", "memory_bytes": 2**30, "slice": None, "free_milli": 1000}],
}  # fmt: skip
QUEUE = {
    "name": "night", "parent": None, "weight": 2.0, "guaranteed": {}, "maximum": {"cpu": 1.0},
    "max_priority": 100, "max_active": None, "share": 0.0, "fair_share": 1.0, "dominant": "cpu",
    "held": {}, "active": 0, "queued": 0, "jobs": 0, "order": "easy", "usage_half_life_s": 3600,
}  # fmt: skip
BEGIN = 1_700_000_000_000


def at(second: float) -> str:
    return f"2023-11-14T22:{13 + int(20 + second) // 60}:{(20 + second) % 60:06.3f}Z"


def event(kind: str, job: str, second: float, spec: Any = None, **data: Any) -> dict[str, Any]:
    line = {"cursor": "default:1", "at": at(second), "kind": kind, "job": job, "data": data}
    return line if spec is None else line | {"spec": spec}


def submitted(job: str, second: float, queue: str = "default", **tasks: Any) -> dict[str, Any]:
    spec = {
        "name": "flow",
        "queue": queue,
        "tasks": {name: {"image": "any"} | more for name, more in tasks.items()},
    }
    return event("job.submitted", job, second, spec, name="flow", namespace="default")


def finished(job: str, second: float, length_s: float, index: int = 0, **more: Any) -> dict[str, Any]:
    end_ms = BEGIN + int(second * 1000)
    given = {
        "task": "a", "index": index, "number": 1, "reason": "exited", "exit_code": 0,
        "assigned_at": end_ms - int(length_s * 1000), "finished_at": end_ms,
    }  # fmt: skip
    return event("attempt.finished", job, second, **(given | more))


def parsed(*lines: dict[str, Any]) -> Exported:
    head = {"kind": "export", "version": 1, "pool": "default", "at": at(0), "events": 1}
    return parse_export(
        [json.dumps(line).encode() for line in (head, {"kind": "node", "node": NODE}, *lines)]
    )


def test_jobs_come_when_they_came_and_take_as_long_as_they_took() -> None:
    found = parsed(
        {"kind": "queue", "queue": QUEUE},
        submitted("j1", 1.5, "night", a={"array": "0-1", "resources": {"cpu": 2}}),
        finished("j1", 12, 10, 0),
        finished("j1", 40, 20, 1, exit_code=1),
        submitted("j2", 3, "gone", a={}),
    )
    work = found.workload
    assert [(one.at_ms - BEGIN, one.job) for one in work.submissions] == [(1500, "j1"), (3000, "j2")]
    assert [work.ending(("j1", 0, index, 1)).length_ms for index in (0, 1)] == [10_000, 20_000]
    assert work.ending(("j1", 0, 1, 1)).exit_code == 1
    assert work.ending(("j2", 0, 0, 1)).length_ms == 15_000  # the mean of tasks of this name
    assert work.guessed == 1 and work.left_out == 0
    night = work.queues[0]
    assert (night.weight_milli, night.maximum) == (2000, {"cpu": 1000})
    assert [queue.name for queue in work.queues] == ["night", "gone"]
    assert (found.order, found.half_life_ms) == ("easy", 3_600_000)
    (node,) = found.nodes.nodes
    assert (node.cpu_milli, node.gpus[0].model) == (2000, "T4")


def test_what_was_lost_cancelled_or_runs_still_tells_a_least_length() -> None:
    found = parsed(
        submitted("j1", 0, a={"array": "0-3", "timeout": "1h"}),
        event("elements.assigned", "j1", 1, task="a", node="n1", elements=[[3, 1]]),
        finished("j1", 5, 5, 0),
        finished("j1", 30, 30, 1, reason="cancelled", exit_code=None),
        event("job.cancel_requested", "j1", 29, task="a", index=1, kill=False),
        finished("other", 31, 9, 0),
        event("job.ended", "unheard", 41, state="succeeded"),
    )
    work = found.workload
    lengths = [work.ending(("j1", 0, index, 1)).length_ms for index in range(4)]
    # The last event is of second 41; element 3 was assigned in second 1.
    assert lengths == [5_000, 30_000, 5_000, 40_000]
    assert work.guessed == 3 and work.left_out == 2
    ((when, cancel),) = work.cancels
    assert (when - BEGIN, cancel.task, cancel.index) == (29_000, "a", 1)


def test_the_replay_of_what_was_is_what_was() -> None:
    found = parsed(
        submitted("j1", 0, a={"resources": {"cpu": 2}}),
        submitted("j2", 1, a={"resources": {"cpu": 2}}),
        finished("j1", 10, 10),
        finished("j2", 20, 10),
    )
    setup = Setup("own")
    told = report(replay(found.workload, found.nodes.nodes, setup, setup.rules([])))
    assert (told.max_wait_s, told.p50_wait_s, told.utilisation, told.length_s) == (9, 0, 1, 20)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"kind": "export", "version": 9}, "line 3: .* it has version 9"),
        (submitted("j", 0, a={"resources": {"cpu": "x"}}), r"line 3: spec.tasks.a.resources.cpu"),
        (event("job.submitted", "j", 0, namespace="default"), "has no 'spec'"),
        ({"kind": 1}, "is no line of an export"),
        ({"kind": "x", "job": "j", "at": "yesterday"}, "is no line of an export"),
        ({"kind": "other"}, "has no submission"),
    ],
)
def test_lines_that_are_wrong_are_told(line: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidDocument, match=said):
        parsed(line)
