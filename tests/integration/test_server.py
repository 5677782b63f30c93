"""The server as a process: the API and the agents' link, over its Unix socket."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.integration.server_process import ScriptedAgent, ServerProcess, ended, job

from towline.simulation.traces.exported import parse_export
from towline.wire.messages import Goodbye, Start, Stop


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    made = ServerProcess(tmp_path)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def agent(server: ServerProcess) -> AsyncIterator[ScriptedAgent]:
    made = ScriptedAgent(server.socket)
    await made.connect()
    yield made
    await made.close()


async def submitted(server: ServerProcess, document: dict[str, Any]) -> str:
    answer = await server.submit(document)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def waited(server: ServerProcess, name: str) -> dict[str, Any]:
    view: dict[str, Any] = await server.get(f"/v1/jobs/{name}/wait", timeout_s=30)
    return view


async def test_a_job_runs_to_its_end(server: ServerProcess, agent: ScriptedAgent) -> None:
    name = await submitted(server, job("dag", a={}, b={"array": 3, "needs": ["a"]}))
    assert (await waited(server, name))["state"] == "succeeded"
    view = await server.get("/v1/jobs/dag")
    assert view["id"] == name
    assert [(task["name"], task["counts"]["succeeded"]) for task in view["tasks"]] == [("a", 1), ("b", 3)]
    [attempt] = view["tasks"][0]["elements"][0]["attempts"]
    assert attempt["started_at"] == "2023-11-14T22:13:20.000Z"
    assert attempt["cpu_seconds"] == 0.001
    listed = await server.get("/v1/jobs", state="succeeded")
    assert [(row["id"], row["tasks"]) for row in listed["jobs"]] == [(name, [])]
    assert [node["name"] for node in (await server.get("/v1/nodes"))["nodes"]] == ["node-1"]


async def test_jobs_are_listed_page_by_page(server: ServerProcess) -> None:
    names = [await submitted(server, job(f"j{at}", a={})) for at in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await server.get("/v1/jobs", limit=2, **({"cursor": cursor} if cursor else {}))
        seen += [row["id"] for row in page["jobs"]]
        assert {row["pool"] for row in page["jobs"]} == {"default"}
        cursor = page["next_cursor"]
        if cursor is None:
            break
        digits, _, last = cursor.partition(".")
        assert last == seen[-1]
        older = await server.get("/v1/jobs", cursor=digits)  # as a version before gave it
        assert [row["id"] for row in older["jobs"]] == names[: -len(seen)][::-1]
    assert seen == names[::-1]
    for wrong in ("x", "-1", "1" * 19, "5.", "5.a b", "٣", "5.\0"):
        answer = await server.http.get("/v1/jobs", params={"cursor": wrong})
        assert answer.status_code == 400 and "is no cursor of jobs" in answer.text


async def test_a_failure_is_told_with_its_element_and_what_needs_it_is_skipped(
    server: ServerProcess, agent: ScriptedAgent
) -> None:
    agent.react = lambda attempt: ended(attempt, 3 if attempt.endswith("-1-1") else 0)
    name = await submitted(server, job(a={"array": 3}, b={"needs": ["a"]}))
    assert (await waited(server, name))["state"] == "failed"
    view = await server.get(f"/v1/jobs/{name}")
    a, b = view["tasks"]
    assert (a["state"], a["message"]) == ("failed", "1 of 3 elements failed")
    assert [e["exit_code"] for e in a["elements"]] == [0, 3, 0]
    assert (b["state"], b["reason"]) == ("skipped", "need_failed")
    failed = await server.get(f"/v1/jobs/{name}/tasks/a", state="failed")
    assert [element["index"] for element in failed["elements"]] == [1]
    why = await server.get(f"/v1/jobs/{name}/why")
    assert "a.1" in " ".join(why["details"])
    why = await server.get(f"/v1/jobs/{name}/why", task="b", index=0)
    assert why["state"] == "skipped"


async def test_why_tells_the_reason_of_what_has_ended_while_its_job_still_runs(
    server: ServerProcess, agent: ScriptedAgent
) -> None:
    agent.react = lambda attempt: ended(attempt, 3) if "-0-0-" in attempt else None
    name = await submitted(server, job(a={}, b={}))
    async with asyncio.timeout(30):
        while (why := await server.get(f"/v1/jobs/{name}/why", task="a"))["state"] != "failed":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert why["summary"] == "Task a has ended: failed. exited with code 3"
    why = await server.get(f"/v1/jobs/{name}/why", task="a", index=0)
    assert why["summary"] == "Element a.0 has ended: failed. exited with code 3"
    assert "best of 1 nodes" in why["placed"]
    assert (await server.get(f"/v1/jobs/{name}"))["state"] == "running"


async def test_elements_are_paged_and_derived(server: ServerProcess, agent: ScriptedAgent) -> None:
    agent.react = lambda attempt: None  # they stay assigned
    document = job(
        a={"array": 2500, "resources": {"cpu": 1}},
        b={"array": 2500, "needs": [{"task": "a", "each": True}], "resources": {"cpu": 8}},
    )
    name = await submitted(server, document)
    await agent.hear(Start)
    done = [ended(f"{name}-0-{index}-1", 0) for index in (0, 2)]
    await agent.report(*done)
    # Elements 0 and 2 of b may start now, and wait for a node that is large enough.
    states: list[str] = []
    cursor: str | None = None
    for _ in range(4):
        page = await server.get(
            f"/v1/jobs/{name}/tasks/a", limit=1000, **({"cursor": cursor} if cursor else {})
        )
        states += [element["state"] for element in page["elements"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(states) == 2500
    await agent.hear(Start, lambda start: start.elements[0][0] == 4)
    page = await server.get(f"/v1/jobs/{name}/tasks/b", limit=5)
    assert [element["state"] for element in page["elements"]] == [
        "queued", "waiting", "queued", "waiting", "waiting",
    ]  # fmt: skip
    assert page["next_cursor"] is not None
    view = await server.get(f"/v1/jobs/{name}", elements=1000)
    assert [len(task["elements"]) for task in view["tasks"]] == [1000, 0]
    queued = await server.get(f"/v1/jobs/{name}/tasks/b", state="queued", limit=2)
    assert [element["index"] for element in queued["elements"]] == [0, 2]


async def test_the_same_key_gives_the_same_job_and_no_other(server: ServerProcess) -> None:
    first, again = await asyncio.gather(server.submit(job(a={}), "k"), server.submit(job(a={}), "k"))
    assert {first.status_code, again.status_code} <= {200, 201}
    assert first.json()["id"] == again.json()["id"]
    later = await server.submit(job(a={}), "k")
    assert (later.status_code, later.json()["id"]) == (200, first.json()["id"])
    other = await server.submit(job(a={}, b={}), "k")
    assert (other.status_code, other.headers["content-type"]) == (409, "application/problem+json")
    assert len((await server.get("/v1/jobs"))["jobs"]) == 1


async def test_problems_name_what_is_wrong_and_nothing_is_done(server: ServerProcess) -> None:
    answer = await server.submit(job(a={"comand": ["true"]}, b={"needs": ["c"]}), "k")
    assert answer.status_code == 422
    wheres = [problem["where"] for problem in answer.json()["problems"]]
    assert any("comand" in where for where in wheres)
    assert any("needs" in where for where in wheres)
    assert (await server.submit(job(a={}), "k")).status_code == 201  # the key is still free
    for content in (b"", b"[]", b"{", b'{"document": 1}', b'{"document": {}, "x": 1}'):
        answer = await server.http.post("/v1/jobs", content=content)
        assert answer.status_code == 422, content
        assert answer.json()["problems"]


async def test_too_large_a_document_is_refused(server: ServerProcess) -> None:
    answer = await server.http.post("/v1/jobs", content=b" " * (64 * 1024**2 + 1))
    assert answer.status_code == 413
    assert "64 MiB" in answer.json()["detail"]


async def test_jobs_are_found_by_id_prefix_and_name(server: ServerProcess) -> None:
    older = await submitted(server, job("same", a={}))
    newer = await submitted(server, job("same", a={}))
    assert (await server.get("/v1/jobs/same"))["id"] == newer
    assert (await server.get(f"/v1/jobs/{older[:8]}"))["id"] == older
    answer = await server.http.get("/v1/jobs/nobody")
    assert (answer.status_code, answer.json()["status"]) == (404, 404)
    assert "nobody" in answer.json()["detail"]


async def test_cancel_stops_what_runs_and_ends_what_waits(
    server: ServerProcess, agent: ScriptedAgent
) -> None:
    agent.react = lambda attempt: None
    name = await submitted(server, job(a={}, b={"needs": ["a"]}))
    await agent.hear(Start)
    answer = await server.http.post(f"/v1/jobs/{name}/cancel", json={"kill": True})
    assert answer.json()["cancel_requested"] is True
    stop = await agent.hear(Stop)
    assert (stop.attempt, stop.grace_ms) == (f"{name}-0-0-1", 0)
    await agent.report(
        ended(stop.attempt, 137).__class__(attempt=stop.attempt, state="finished", reason="cancelled")
    )
    assert (await waited(server, name))["state"] == "cancelled"
    again = await server.http.post(f"/v1/jobs/{name}/cancel", json={})
    assert again.json()["state"] == "cancelled"
    wrong = await server.http.post(f"/v1/jobs/{name}/cancel", json={"index": 1})
    assert wrong.status_code == 400


async def events_of(server: ServerProcess, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with server.http.stream("GET", path) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                found += json.loads(line.removeprefix("data: "))
    return found


async def test_events_are_streamed_to_the_end_and_from_a_cursor(
    server: ServerProcess, agent: ScriptedAgent
) -> None:
    agent.react = lambda attempt: None
    name = await submitted(server, job(a={"array": 4}))
    await agent.hear(Start)
    reading = asyncio.create_task(events_of(server, f"/v1/jobs/{name}/events"))
    await agent.report(*(ended(f"{name}-0-{index}-1", 0) for index in range(4)))
    events = await reading
    kinds = [event["kind"] for event in events]
    assert kinds[0] == "job.submitted"
    assert kinds[-1] == "job.ended"
    assert kinds.count("attempt.finished") == 4
    assert await events_of(server, f"/v1/jobs/{name}/events") == events
    middle = events[3]["cursor"]
    assert await events_of(server, f"/v1/jobs/{name}/events?cursor={middle}") == events[4:]
    assert await events_of(server, f"/v1/jobs/{name}/events?cursor={events[-1]['cursor']}") == []
    page = await server.get("/v1/events", limit=2, job=name)
    assert page["events"] == events[:2]
    assert (await server.http.get("/v1/events?cursor=x")).status_code == 400


async def output_of(server: ServerProcess, path: str) -> bytes:
    answer = await server.http.get(path)
    assert answer.status_code == 200, answer.text
    lines = [json.loads(line) for line in answer.text.splitlines()]
    return b"".join(base64.b64decode(line["data"]) for line in lines)


async def test_output_is_read_from_the_node(server: ServerProcess, agent: ScriptedAgent) -> None:
    name = await submitted(server, job(a={}))
    await waited(server, name)
    agent.output[f"{name}-0-0-1"] = {"stdout": b"out\n\xff\x00", "stderr": b"err\n"}
    path = f"/v1/jobs/{name}/tasks/a/elements/0/logs"
    assert sorted(await output_of(server, path)) == sorted(b"out\n\xff\x00err\n")
    assert await output_of(server, f"{path}?stream=stderr&follow=true") == b"err\n"
    assert await output_of(server, f"{path}?stream=stdout&tail=1") == b"\xff\x00"
    assert (await server.http.get(f"{path}?attempt=2")).status_code == 404
    assert (await server.http.get(f"/v1/jobs/{name}/tasks/a/elements/9/logs")).status_code == 404
    await agent.close()
    answer = await server.http.get(path)
    assert answer.status_code == 503
    assert "node-1" in answer.text or "n1" in answer.text


async def test_output_is_followed_from_before_the_start(server: ServerProcess, agent: ScriptedAgent) -> None:
    agent.react = lambda attempt: None
    blocker = await submitted(server, job(a={"resources": {"cpu": 4}}))
    await agent.hear(Start)
    name = await submitted(server, job(a={}))
    agent.output[f"{name}-0-0-1"] = {"stdout": b"late\n"}
    reading = asyncio.create_task(output_of(server, f"/v1/jobs/{name}/tasks/a/elements/0/logs?follow=true"))
    await agent.report(ended(f"{blocker}-0-0-1", 0))
    assert await reading == b"late\n"


async def test_nothing_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    await server.start()
    agent = ScriptedAgent(server.socket)
    agent.react = lambda attempt: None
    await agent.connect()
    name = await submitted(server, job(a={}, b={"needs": ["a"]}))
    await agent.hear(Start)
    assert server.signal(signal.SIGKILL) == -signal.SIGKILL
    await agent.until_closed()
    agent.known[f"{name}-0-0-1"] = ended(f"{name}-0-0-1", 0)  # it ended while nobody listened
    await server.start()
    back = ScriptedAgent(server.socket)
    back.known = agent.known
    await back.connect()
    assert (await waited(server, name))["state"] == "succeeded"
    assert (await server.get("/v1/server"))["term"] == 2
    await back.close()
    await agent.close()
    await server.close()


async def test_a_terminated_server_says_goodbye_and_frees_everything(
    server: ServerProcess, agent: ScriptedAgent
) -> None:
    assert await asyncio.to_thread(server.signal, signal.SIGTERM) == 0
    await agent.hear(Goodbye)
    await agent.until_closed()
    assert not server.socket.exists()


async def test_stop_is_answered_and_done(server: ServerProcess) -> None:
    waiting = asyncio.create_task(server.http.get("/v1/jobs/x/wait"))
    assert (await server.http.post("/v1/server/stop")).status_code == 202
    assert await server.ended() == 0
    await asyncio.wait([waiting])
    assert not server.socket.exists()
    with pytest.raises(httpx2.TransportError):
        await server.http.get("/readyz")


async def test_an_idle_server_ends_unless_somebody_needs_it(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, TOWLINE_IDLE_S="0.3")
    await server.start()
    agent = ScriptedAgent(server.socket)
    agent.react = lambda attempt: None
    await agent.connect()
    name = await submitted(server, job(a={}))
    await agent.hear(Start)
    await server.http.aclose()  # nobody is connected but the agent, and a job runs
    await asyncio.sleep(0.6)
    assert server.process is not None
    assert server.process.poll() is None
    await agent.report(ended(f"{name}-0-0-1", 0))
    assert await server.ended() == 0
    await agent.hear(Goodbye)
    assert not server.socket.exists()
    await agent.close()


async def test_a_second_server_of_a_home_waits_for_the_first(server: ServerProcess) -> None:
    second = ServerProcess(server.home)
    await second.start()  # what is ready now is the first, at the same socket
    await asyncio.sleep(0.5)  # long enough, mostly, for the second to have come to the lease
    assert await asyncio.to_thread(server.signal, signal.SIGTERM) == 0
    await second.until_ready()
    assert (await second.get("/v1/server"))["term"] == 2
    await second.close()


async def test_wrong_settings_are_named(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, TOWLINE_IDLE_S="soon")
    with pytest.raises(AssertionError, match="TOWLINE_IDLE_S"):
        await server.start()
    await server.close()


async def test_other_hosts_are_refused(server: ServerProcess) -> None:
    answer = await server.http.get("/v1/server", headers={"host": "evil.example"})
    assert answer.status_code == 421


async def test_the_log_is_exported_with_what_a_simulation_needs(
    server: ServerProcess, agent: ScriptedAgent
) -> None:
    first = await submitted(server, job("one", a={"array": 3, "env": {"TOKEN": "geheim"}}))
    await waited(server, first)
    answer = await server.http.get("/v1/events/export")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    head, node, queue, *events = lines
    assert (head["kind"], head["version"], head["events"]) == ("export", 1, len(events))
    assert (node["node"]["name"], queue["queue"]["name"]) == ("node-1", "default")
    page = await server.get("/v1/events", limit=10_000)
    assert [event["cursor"] for event in events] == [event["cursor"] for event in page["events"]]
    [spec] = [event["spec"] for event in events if event["kind"] == "job.submitted"]
    assert spec["tasks"]["a"]["array"] == "0-2" and "geheim" not in answer.text
    second = await submitted(server, job("two", a={}))
    await waited(server, second)
    [at] = [event["at"] for event in (await server.get("/v1/events", job=second, limit=1))["events"]]
    since_ms = int(datetime.fromisoformat(at).timestamp() * 1000)
    later = (await server.http.get(f"/v1/events/export?since_ms={since_ms}")).text
    assert second in later and first not in later
    found = parse_export(answer.text.encode().split(b"\n"))
    assert found.workload.guessed == 0 and len(found.nodes.nodes) == 1
