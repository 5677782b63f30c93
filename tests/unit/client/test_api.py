"""Requests: what is repeated, with which key, and what errors answers stand for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.unit.client.canned import Canned, answer, broken_off, job_view

from towline.client import Client
from towline.client.cluster.access import Access
from towline.client.cluster.nodes import Nodes
from towline.client.images import Registries
from towline.errors import Conflict, InvalidDocument, NotFound, OperatorError, RequestError, Unavailable

SPEC = {"name": "flights", "tasks": {"main": {"runtime": "process", "command": ["true"]}}}
PROBLEM = "application/problem+json"


async def test_end_before_the_answer_repeats_with_the_same_key(canned: Canned) -> None:
    canned.answers = [b"", answer(job_view(), 201)]
    starts: list[str] = []

    async def start() -> None:
        starts.append("started")

    async with Client(canned.path, start=start) as client:
        job = await client.submit(SPEC)
    assert job.id == "job1"
    first, second = canned.asked
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.body == second.body
    assert starts == ["started"]


async def test_refused_connection_starts_a_server(tmp_path: Path, closed_socket: Callable[[], Path]) -> None:
    server = Canned(closed_socket())
    server.answers = [answer(job_view())]

    async def start() -> None:
        server.path.unlink()
        await server.start()

    async with Client(server.path, start=start) as client:
        assert (await client.job("flights")).id == "job1"
    await server.stop()


async def test_missing_socket_without_a_starter_is_unavailable(tmp_path: Path) -> None:
    async with Client(tmp_path / "none.sock", patience_s=0) as client:
        with pytest.raises(Unavailable, match=r"No server answers on .*none.sock"):
            await client.server()


async def test_503_is_repeated_and_starts_nothing(canned: Canned) -> None:
    busy = answer({"title": "Not now", "status": 503, "detail": "loading"}, 503, retry_after="0.01")
    canned.answers = [busy, busy, answer({"jobs": [], "next_cursor": None})]

    async def start() -> None:
        raise AssertionError("a server that answers is not to be started")

    async with Client(canned.path, start=start) as client:
        assert (await client.jobs()).jobs == []
    assert len(canned.asked) == 3


async def test_503_at_the_end_of_patience_says_what_the_server_said(canned: Canned) -> None:
    canned.answers = [answer({"status": 503, "detail": "the pool is being loaded"}, 503)]
    async with Client(canned.path, patience_s=0) as client:
        with pytest.raises(Unavailable, match="the pool is being loaded"):
            await client.nodes()


async def test_failing_start_is_told_at_once(tmp_path: Path) -> None:
    async def start() -> None:
        raise Unavailable("The local server ended while it started.")

    async with Client(tmp_path / "none.sock", start=start) as client:
        with pytest.raises(Unavailable, match="ended while it started"):
            await client.server()


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, NotFound), (409, Conflict), (400, RequestError), (413, RequestError), (500, OperatorError)],
)
async def test_problem_documents_are_errors(canned: Canned, status: int, error: type[Exception]) -> None:
    canned.answers = [answer({"title": "T", "status": status, "detail": "why"}, status, content_type=PROBLEM)]
    async with Client(canned.path) as client:
        with pytest.raises(error, match="why"):
            await client.job("x")


async def test_refused_documents_name_file_field_and_remedy(canned: Canned, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(msgspec.json.encode(SPEC).decode())
    problems = [{"where": "tasks.main.mounts[0]", "message": "is outside", "remedy": "move it", "line": None}]
    canned.answers = [answer({"status": 422, "problems": problems}, 422)]
    async with Client(canned.path) as client:
        with pytest.raises(InvalidDocument) as raised:
            await client.submit(file)
    assert raised.value.source == str(file)
    assert raised.value.problems[0].where == "tasks.main.mounts[0]"
    assert raised.value.problems[0].remedy == "move it"


async def test_answers_that_are_no_problem_documents(canned: Canned) -> None:
    canned.answers = [answer(b"<html>teapot</html>", 418)]
    async with Client(canned.path) as client:
        with pytest.raises(RequestError, match="teapot"):
            await client.server()


async def test_invalid_documents_are_never_sent(canned: Canned) -> None:
    async with Client(canned.path) as client:
        with pytest.raises(InvalidDocument, match="tasks"):
            await client.submit({"name": "x"})
    assert canned.asked == []


async def test_submission_carries_parameters_and_folder(canned: Canned, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("name: a\nparams: {year: 1}\ntasks: {t: {runtime: process, command: [x]}}\n")
    canned.answers = [answer(job_view(), 201)]
    async with Client(canned.path) as client:
        await client.submit(file, params={"year": 2014}, key="mine")
    body = msgspec.json.decode(canned.asked[0].body)
    assert body["params"] == {"year": 2014}
    assert body["base_dir"] == str(tmp_path)
    assert body["document"]["params"] == {"year": 1}
    assert canned.asked[0].headers["idempotency-key"] == "mine"


async def test_names_are_quoted_in_paths(canned: Canned) -> None:
    canned.answers = [answer(job_view())]
    async with Client(canned.path) as client:
        await client.job("a/b c?")
        assert canned.asked[0].target.startswith("/v1/jobs/a%2Fb%20c%3F?")
        with pytest.raises(NotFound):
            await client.job("..")
        for name in ("", "..", "a/b"):
            with pytest.raises(RequestError, match="is no queue"):
                await client.queue(name)
            for asked in (
                Nodes(client).get,
                Nodes(client).drain,
                Access(client).delete,
                Registries(client).logout,
            ):
                with pytest.raises(NotFound, match="There is no"):
                    await asked(name)


async def test_stopping_is_not_repeated(canned: Canned) -> None:
    canned.answers = [b""]
    async with Client(canned.path) as client:
        with pytest.raises(Unavailable):
            await client.stop_server()
    assert len(canned.asked) == 1


async def test_stream_that_breaks_off_is_unavailable(canned: Canned) -> None:
    canned.answers = [broken_off(b"some")]
    seen = []
    async with Client(canned.path) as client:
        with pytest.raises(Unavailable, match="ended before its answer did"):
            async with client.stream("/v1/events") as chunks:
                async for chunk in chunks:
                    seen.append(chunk)
    assert b"".join(seen) == b"some"
