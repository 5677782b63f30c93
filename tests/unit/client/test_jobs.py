"""Jobs: waiting and streams that go on where a server ended."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec
import pytest
from tests.unit.client.canned import Canned, answer, broken_off, job_view, task_view

from towline.client import Client, Job
from towline.client.progress import Element, Progress, Step, follow
from towline.errors import NotFound
from towline.model.views import ElementView, EventView


def event(kind: str, cursor: str = "c", **data: Any) -> EventView:
    return EventView(cursor=cursor, at="2026-01-31T12:00:00.000Z", kind=kind, job="job1", data=data)


def sse(cursor: str, *events: EventView) -> bytes:
    return b"id: " + cursor.encode() + b"\ndata: " + msgspec.json.encode(events) + b"\n\n"


def log(offset: int, data: bytes, stream: str = "stdout") -> bytes:
    line = {"stream": stream, "at": 1, "offset": offset, "data": b64encode(data).decode()}
    return msgspec.json.encode(line) + b"\n"


def job_of(canned: Canned, **view: Any) -> tuple[Client, Job]:
    client = Client(canned.path)
    return client, Job(client, job_view(**view))


async def test_wait_asks_again_until_it_has_ended(canned: Canned) -> None:
    canned.answers = [answer(job_view()), answer(job_view("failed"))]
    client, job = job_of(canned)
    async with client:
        assert (await job.wait()).state == "failed"
    assert [asked.target for asked in canned.asked] == ["/v1/jobs/job1/wait?timeout_s=30"] * 2


async def test_wait_gives_up_after_its_timeout(canned: Canned) -> None:
    canned.answers = [answer(job_view())]
    client, job = job_of(canned)
    async with client:
        assert (await job.wait(timeout_s=0)).state == "running"


async def test_events_go_on_after_the_last_cursor(canned: Canned) -> None:
    begin, end = event("job.submitted"), event("job.ended", state="succeeded")
    canned.answers = [broken_off(sse("7", begin)), answer(sse("8", end))]
    client, job = job_of(canned)
    async with client:
        assert [found.kind async for found in job.events()] == ["job.submitted", "job.ended"]
    assert [asked.target for asked in canned.asked] == [
        "/v1/jobs/job1/events",
        "/v1/jobs/job1/events?cursor=7",
    ]


async def test_events_of_a_quarantined_job_end(canned: Canned) -> None:
    canned.answers = [broken_off(sse("7", event("job.quarantined")))]
    client, job = job_of(canned)
    async with client:
        assert [found.kind async for found in job.events()] == ["job.quarantined"]


async def test_logs_are_read_on_without_a_gap_or_a_repeat(canned: Canned) -> None:
    canned.answers = [
        broken_off(log(90, b"ab") + log(92, b"c")),
        answer(log(0, b"x" * 90) + log(90, b"abcde")),
    ]
    client, job = job_of(canned)
    async with client:
        found = b"".join([chunk.data async for chunk in job.logs("count", 3, tail=1, follow=True)])
    assert found == b"abcde"
    first, second = (asked.target for asked in canned.asked)
    assert first.startswith("/v1/jobs/job1/tasks/count/elements/3/logs?")
    assert "tail=1" in first
    assert "tail" not in second


async def test_the_only_element_need_not_be_named(canned: Canned) -> None:
    element = ElementView(index=5, state="active", reason=None, message=None, exit_code=None, attempts=[])
    task = task_view("count")
    page = msgspec.structs.replace(task, elements=[element])
    canned.answers = [answer(job_view(tasks=[task])), answer(page), answer(log(0, b"hi"))]
    client, job = job_of(canned)
    async with client:
        assert [chunk.data async for chunk in job.logs()] == [b"hi"]
    assert "/tasks/count/elements/5/logs" in canned.asked[-1].target


@pytest.mark.parametrize(
    ("tasks", "named", "message"),
    [
        ([task_view("a"), task_view("b")], None, "2 tasks; say which: a, b"),
        ([task_view("a", size=3)], None, "3 elements; say which, such as a.0"),
        ([task_view("a")], "b", "no task 'b'; its tasks: a"),
    ],
)
async def test_logs_of_several_elements_say_what_to_name(
    canned: Canned, tasks: list[Any], named: str | None, message: str
) -> None:
    canned.answers = [answer(job_view(tasks=tasks))]
    client, job = job_of(canned)
    async with client:
        with pytest.raises(NotFound, match=message):
            _ = [chunk async for chunk in job.logs(named)]


async def test_elements_are_read_page_by_page(canned: Canned) -> None:
    def page(index: int, cursor: str | None) -> bytes:
        element = ElementView(
            index=index, state="failed", reason=None, message=None, exit_code=1, attempts=[]
        )
        return answer(msgspec.structs.replace(task_view("a"), elements=[element], next_cursor=cursor))

    canned.answers = [page(0, "0"), page(1, None)]
    client, job = job_of(canned)
    async with client:
        assert [element.index async for element in job.elements("a", state="failed")] == [0, 1]
    assert "cursor=0" in canned.asked[1].target


async def test_following_ends_with_the_last_view(canned: Canned) -> None:
    canned.answers = [
        answer(sse("1", event("job.submitted"), event("job.ended", state="succeeded"))),
        answer(job_view("succeeded")),
    ]
    client, job = job_of(canned)
    async with client:
        steps = [step async for step in follow(job)]
    assert [found.kind for step in steps for found in step.events] == ["job.submitted", "job.ended"]
    last = steps[-1].view
    assert last is not None
    assert last.state == "succeeded"


async def test_following_raises_what_the_server_answers(canned: Canned) -> None:
    canned.answers = [answer({"status": 404, "detail": "gone"}, 404)]
    client, job = job_of(canned)
    async with client:
        with pytest.raises(NotFound, match="gone"):
            _ = [step async for step in follow(job)]


def test_progress_keeps_what_runs_and_what_failed() -> None:
    progress = Progress(job_view(tasks=[task_view("a", size=3)]))
    assigned = event("elements.assigned", task="a", node="n", elements=[[0, 1], [1, 1], [2, 1]])
    progress.apply(Step([assigned, event("attempt.running", task="a", index=0, number=1)], None))
    assert progress.started == ["a"]
    assert list(progress.running) == [Element("a", 0), Element("a", 1), Element("a", 2)]

    def finished(index: int, element_state: str) -> EventView:
        return event(
            "attempt.finished",
            task="a",
            index=index,
            number=1,
            state="finished",
            reason="exited",
            exit_code=index,
            element_state=element_state,
        )

    progress.apply(Step([finished(0, "succeeded"), finished(1, "queued"), finished(2, "failed")], None))
    assert progress.started == []
    assert not progress.running
    again, final = progress.failures
    assert (again.element, again.again) == (Element("a", 1), True)
    assert (final.exit_code, final.again) == (2, False)
    progress.apply(Step([event("task.ended", task="a", state="failed")], job_view("failed")))
    assert progress.ended == [("a", "failed")]
    assert progress.view.state == "failed"
    assert progress.failures == []
