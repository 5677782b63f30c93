"""What people are told of images that their attempts wait for."""

from __future__ import annotations

import pytest

from towline.model.pulls import PullingView, pull_text
from towline.model.views import WhyView
from towline.server.pulls import explain_pulls, pulls_of
from towline.wire.messages import decode_from_agent, encode
from towline.wire.pulls import Pull, Pulls

IMAGE = "docker.io/library/debian:12"
SLOW = Pull(IMAGE, "pulling", 84_000_000, 208_000_000, 12_400, (("j1", 0), ("j1", 2), ("j2", 0)))
OTHER = Pull("x:1", "asking", 0, None, 900, (("j1", 1),))
TOLD = [("node-1", "ada", SLOW), ("node-2", "bob", OTHER)]
TEXT = f"pulling {IMAGE}: 84 of 208 MB, 12 s"


def why(task: str | None, index: int | None, preparing_on: str | None = None) -> WhyView:
    return WhyView(
        job="j1", task=task, index=index, state="active", summary="as it was", details=["first"],
        preparing_on=preparing_on,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("step", "arrived", "total", "text"),
    [
        ("pulling", 84_000_000, 208_000_000, "pulling x: 84 of 208 MB, 12 s"),
        ("pulling", 1_250_000, 9_990_000, "pulling x: 1.2 of 10.0 MB, 12 s"),
        ("pulling", 1_000_000, None, "pulling x: 1.0 MB, 12 s"),
        ("asking", 0, None, "asking the registry for x, 12 s"),
        ("unpacking", 5, 5, "unpacking x, 12 s"),
    ],
)
def test_a_pull_in_words(step: str, arrived: int, total: int | None, text: str) -> None:
    view = PullingView(
        image="x", node="n", tasks=["t"], step=step, arrived_bytes=arrived, total_bytes=total, seconds=12.4
    )
    assert pull_text(view) == text


def test_a_job_is_shown_its_own_pulls() -> None:
    found = pulls_of(TOLD, "j1", ["a", "b", "c"])
    assert [(view.image, view.node, view.tasks) for view in found] == [
        (IMAGE, "ada", ["a", "c"]),
        ("x:1", "bob", ["b"]),
    ]
    assert [view.tasks for view in pulls_of(TOLD, "j2", ["only"])] == [["only"]]
    assert pulls_of(TOLD, "j3", []) == []


def test_an_element_is_told_what_its_own_node_gets_for_its_task() -> None:
    names = ["a", "b", "c"]
    element = explain_pulls(why("a", 3, "node-1"), TOLD, names)
    assert (element.summary, element.details) == (f"node ada is {TEXT}", ["first"])
    elsewhere = explain_pulls(why("a", 3, "node-2"), TOLD, names)
    assert (elsewhere.summary, elsewhere.pulls) == ("as it was", [])
    running = explain_pulls(why("a", 3), TOLD, names)
    assert (running.summary, running.pulls) == ("as it was", [])


def test_jobs_and_tasks_are_told_of_all_nodes() -> None:
    names = ["a", "b", "c"]
    task = explain_pulls(why("c", None), TOLD, names)
    assert (task.summary, task.details) == ("as it was", ["first", f"node ada is {TEXT}"])
    job = explain_pulls(why(None, None), TOLD, names)
    assert len(job.details) == 3
    assert len(job.pulls) == 2


def test_pulls_travel() -> None:
    assert decode_from_agent(encode([Pulls(pulls=(SLOW,)), Pulls()])) == [Pulls(pulls=(SLOW,)), Pulls()]
