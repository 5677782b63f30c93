"""Webhooks from a real server to a real receiver."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.integration.server_process import PATIENCE_S, ScriptedAgent, ServerProcess, ended, job

from towline.core.commands import AttemptUpdate

KEY = b"a key"


class Message(NamedTuple):
    headers: dict[str, str]
    body: bytes

    @property
    def job(self) -> dict[str, Any]:
        return json.loads(self.body)["job"]

    def is_genuine(self) -> bool:
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        made = base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256)).decode()
        return self.headers["webhook-signature"] == f"v1,{made}"


class Receiver:
    """Takes messages; the first ``refuse`` ones are answered with 500."""

    def __init__(self) -> None:
        self.refuse = 0
        self.got: list[Message] = []
        self._news = asyncio.Condition()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/hook?x=secret"

    async def close(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head)}
        body = await reader.readexactly(int(headers["content-length"]))
        status = "500 Oh" if self.refuse > 0 else "204 No Content"
        self.refuse -= 1
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        writer.close()
        async with self._news:
            self.got.append(Message(headers, body))
            self._news.notify_all()

    async def messages(self, count: int) -> list[Message]:
        async with asyncio.timeout(2 * PATIENCE_S), self._news:
            await self._news.wait_for(lambda: len(self.got) >= count)
        return self.got


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def server() -> AsyncIterator[ServerProcess]:
    home = Path(tempfile.mkdtemp(prefix="tow-"))
    made = ServerProcess(home, TOWLINE_WEBHOOK_TARGETS="127.0.0.1, ci.lan")
    try:
        await made.start()
        answer = await made.http.put("/v1/secrets/hook", json={"value": base64.b64encode(KEY).decode()})
        assert answer.status_code == 200
        yield made
    finally:
        await made.close()
        shutil.rmtree(home)


def fail(attempt: str) -> AttemptUpdate:
    return ended(attempt, 3)


def asking(url: str, **fields: object) -> dict[str, Any]:
    return {**job("told", a={}), "notify": [{"webhook": url, "secret": "hook", **fields}]}


async def deliveries(server: ServerProcess, id: str, state: str) -> list[dict[str, Any]]:
    """Once all are in this state."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = (await server.get(f"/v1/jobs/{id}"))["webhooks"]
            if found and all(one["state"] == state for one in found):
                return found
            await asyncio.sleep(0.05)


async def test_a_jobs_end_is_told_with_a_signature(server: ServerProcess, receiver: Receiver) -> None:
    agent = ScriptedAgent(server.socket)
    await agent.connect()
    await server.submit(asking(receiver.url, on=["failed"]))  # succeeds, which nobody wants to hear of
    id = (await server.submit(asking(receiver.url))).json()["id"]
    (message,) = await receiver.messages(1)
    assert message.is_genuine()
    assert (message.job["id"], message.job["name"], message.job["state"]) == (id, "told", "succeeded")
    assert message.job["counts"]["succeeded"] == 1
    (view,) = await deliveries(server, id, "delivered")
    assert (view["outcome"], view["attempts"], view["message"]) == ("succeeded", 1, None)
    assert view["webhook"] == receiver.url.partition("?")[0]
    await agent.close()


async def test_it_is_tried_again_under_the_same_id_also_by_the_next_server(
    server: ServerProcess, receiver: Receiver
) -> None:
    agent = ScriptedAgent(server.socket)
    agent.react = fail
    await agent.connect()
    receiver.refuse = 1
    id = (await server.submit(asking(receiver.url, on=["failed"]))).json()["id"]
    await receiver.messages(1)
    await agent.close()
    server.signal(signal.SIGKILL)
    await server.start()
    first, *_, last = await receiver.messages(2)
    assert first.headers["webhook-id"] == last.headers["webhook-id"]
    assert first.job["state"] == last.job["state"] == "failed"
    assert last.is_genuine()
    await deliveries(server, id, "delivered")


async def test_an_end_that_the_server_did_not_live_to_tell_is_told_by_the_next_one(
    server: ServerProcess, receiver: Receiver
) -> None:
    agent = ScriptedAgent(server.socket)
    await agent.connect()
    id = (await server.submit(asking(receiver.url))).json()["id"]
    await server.get(f"/v1/jobs/{id}/wait", timeout_s=30)
    server.signal(signal.SIGKILL)
    await agent.close()
    await server.start()
    assert (await receiver.messages(1))[0].job["id"] == id


REFUSED: list[tuple[dict[str, object], str]] = [
    ({"webhook": "https://10.0.0.1/x"}, "notify[0].webhook"),
    ({"webhook": "http://127.0.0.2/x"}, "notify[0].webhook"),
    ({"webhook": "ftp://ci.lan/x"}, "notify[0].webhook"),
    ({"secret": "none"}, "notify[0].secret"),
    ({"on": ["ended"]}, "notify[0].on[0]"),
    ({"weebhook": "x"}, "notify[0].weebhook"),
]


async def test_what_cannot_be_told_is_refused(server: ServerProcess) -> None:
    for fields, where in REFUSED:
        answer = await server.submit(asking("http://ci.lan/x", **fields))
        assert answer.status_code == 422, fields
        assert [problem["where"] for problem in answer.json()["problems"]] == [where]


async def test_a_name_that_leads_to_this_machine_is_given_up(server: ServerProcess) -> None:
    server.signal(signal.SIGKILL)
    other = ServerProcess(server.home, TOWLINE_WEBHOOK_TARGETS="localhost")
    try:
        await other.start()
        agent = ScriptedAgent(other.socket)
        await agent.connect()
        id = (await other.submit(asking("http://localhost:1/x"))).json()["id"]
        (view,) = await deliveries(other, id, "failed")
        await agent.close()
    finally:
        await other.close()
    assert "webhook_targets" in view["message"]
    assert view["attempts"] == 1
