"""A real HTTP server on a Unix socket that answers each request with the bytes it was given."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

import msgspec

from towline.model.views import JobView, TaskView


class Asked(NamedTuple):
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Canned:
    """``answers`` are sent in order, one a request; the connection is closed after each. An empty answer
    is an end before the answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: list[bytes] = []
        self.asked: list[Asked] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, target, _ = head[0].split(" ")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.asked.append(Asked(method, target, headers, body))
            writer.write(self.answers.pop(0))
            await writer.drain()
        finally:
            writer.close()


def answer(body: object, status: int = 200, **headers: str) -> bytes:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    lines = [f"HTTP/1.1 {status} Some", "connection: close", f"content-length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def broken_off(body: bytes) -> bytes:
    """An answer that promises more than it sends."""
    return b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\nconnection: close\r\n\r\n" + body


def job_view(state: str = "running", tasks: list[TaskView] | None = None) -> JobView:
    return JobView(
        id="job1",
        name="flights",
        namespace="default",
        state=state,
        reason=None,
        message=None,
        priority=50,
        labels={},
        submitted_at="2026-01-31T12:00:00.000Z",
        ended_at=None if state == "running" else "2026-01-31T12:00:01.500Z",
        cancel_requested=False,
        counts={},
        tasks=tasks or [],
    )


def task_view(name: str, size: int = 1, state: str = "active", **counts: int) -> TaskView:
    return TaskView(
        name=name,
        state=state,
        reason=None,
        message=None,
        size=size,
        needs=[],
        counts=counts,
        elements=[],
        next_cursor=None,
    )
