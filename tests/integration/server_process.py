"""A real server process on its Unix socket, and an agent that a test scripts over the real wire."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosedError

from towline.core.commands import AttemptUpdate, attempt_id
from towline.wire.messages import (
    VERSION,
    Ack,
    FromAgent,
    FromServer,
    Heartbeat,
    Hello,
    LogChunk,
    ReadLog,
    Report,
    Start,
    Stop,
    TaskInfo,
    Welcome,
    decode_from_server,
    encode,
)

M = TypeVar("M")
PATIENCE_S = 30


class ServerProcess:
    """``python -m towline.launch server`` on a home of its own."""

    def __init__(self, home: Path, **environ: str) -> None:
        self.home = home
        self.socket = home / "tow.sock"
        self._environ = {**os.environ, "TOWLINE_IDLE_S": "600", **environ}
        self.process: subprocess.Popen[bytes] | None = None
        self.http = self.client()

    def client(self) -> httpx2.AsyncClient:
        transport = httpx2.AsyncHTTPTransport(uds=os.fspath(self.socket))
        return httpx2.AsyncClient(transport=transport, base_url="http://towline", timeout=PATIENCE_S)

    async def start(self, *arguments: str) -> None:
        """Start it and wait until it is ready."""
        self.process = self._spawn(arguments or ("--without-agent",))
        await self.until_ready()

    async def until_ready(self) -> None:
        """Wait until a server answers at its socket; it may not end meanwhile."""
        assert self.process is not None
        async with asyncio.timeout(PATIENCE_S):
            while not await self.ready():
                assert self.process.poll() is None, self.log()
                await asyncio.sleep(0.02)

    def _spawn(self, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "towline.launch", "server", "--home", str(self.home), *arguments]
        with (self.home / "server.log").open("ab") as log:
            return subprocess.Popen(argv, env=self._environ, stdout=log, stderr=log)

    async def ready(self) -> bool:
        try:
            return (await self.http.get("/readyz")).status_code == 200
        except httpx2.TransportError:
            return False

    def log(self) -> str:
        return (self.home / "server.log").read_text()

    def signal(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    async def ended(self) -> int:
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, PATIENCE_S)

    async def close(self) -> None:
        await self.http.aclose()
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGKILL)

    async def submit(self, document: dict[str, Any], key: str | None = None) -> httpx2.Response:
        headers = {"idempotency-key": key} if key is not None else {}
        body = {"document": document, "params": {}, "base_dir": None}
        return await self.http.post("/v1/jobs", json=body, headers=headers)

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


def job(name: str = "job", **tasks: dict[str, Any]) -> dict[str, Any]:
    """A job file's tree; each task is a ``true`` unless it says otherwise."""
    default = {"runtime": "process", "command": ["true"]}
    return {"name": name, "tasks": {task: {**default, **fields} for task, fields in tasks.items()}}


class ScriptedAgent:
    """Speaks the wire protocol; ``react`` decides what becomes of each started element.

    Without it every element ends at once with exit code 0. Output is ``output[attempt][stream]``.
    """

    def __init__(self, socket: Path, *, instance: str = "i1", cpus: int = 4, node: str = "n1") -> None:
        self._path = socket
        self._instance = instance
        self._cpus = cpus
        self._node = node
        self.link: ClientConnection | None = None
        self.heard: list[FromServer] = []
        self.output: dict[str, dict[str, bytes]] = {}
        self.complete = True
        self.react: Callable[[str], AttemptUpdate | None] = succeed
        self.known: dict[str, AttemptUpdate] = {}
        self._seq = 0
        self._news = asyncio.Condition()
        self._reader: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        self.link = await unix_connect(
            os.fspath(self._path), uri="ws://towline/v1/agent/link", compression=None, max_size=None
        )
        hello = Hello(
            version=VERSION,
            build="test",
            node=self._node,
            name="node-1",
            instance=self._instance,
            boot_id="boot",
            cpu_milli=self._cpus * 1000,
            memory_bytes=2**36,
            pids=1_000_000,
            labels={},
            runtimes={"process": None},
            known=tuple(self.known.values()),
        )
        await self.say(hello)
        self._reader = asyncio.create_task(self._read())
        await self.hear(Welcome)

    async def say(self, *messages: FromAgent) -> None:
        assert self.link is not None
        await self.link.send(encode(messages))

    async def report(self, *updates: AttemptUpdate) -> int:
        self._seq += 1
        self.known.update({update.attempt: update for update in updates})
        await self.say(Report(seq=self._seq, updates=updates))
        return self._seq

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosedError):
            await self._read_frames()
        async with self._news:
            self._news.notify_all()

    async def _read_frames(self) -> None:
        assert self.link is not None
        async for frame in self.link:
            assert isinstance(frame, bytes)
            updates: list[AttemptUpdate] = []
            for message in decode_from_server(frame):
                self.heard.append(message)
                if isinstance(message, Start):
                    for index, number in message.elements:
                        name = attempt_id((message.job, message.task, index, number))
                        update = self.react(name)
                        if update is not None:
                            updates.append(update)
                elif isinstance(message, ReadLog):
                    await self._answer(message)
                elif isinstance(message, Ack):
                    for attempt in message.forget:
                        self.known.pop(attempt, None)
            if updates:
                await self.report(*updates)
            async with self._news:
                self._news.notify_all()

    async def _answer(self, asked: ReadLog) -> None:
        data = self.output.get(asked.attempt, {}).get(asked.stream, b"")
        begin = max(0, len(data) + asked.offset) if asked.offset < 0 else asked.offset
        some = data[begin : begin + asked.limit]
        end = self.complete and begin + len(some) == len(data)
        index = ((0, 1_000),) if begin == 0 and some else ()
        await self.say(LogChunk(request=asked.request, offset=begin, data=some, index=index, end=end))

    async def hear(self, kind: type[M], which: Callable[[M], bool] = lambda _: True) -> M:
        """The first message of a kind so far, or the next to come."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            while True:
                for message in self.heard:
                    if isinstance(message, kind) and which(message):
                        return message
                await self._news.wait()

    async def heartbeat(self) -> None:
        await self.say(Heartbeat(sent_boottime_ms=1))

    async def until_closed(self) -> None:
        assert self._reader is not None
        async with asyncio.timeout(PATIENCE_S):
            await self._reader

    async def close(self) -> None:
        if self.link is not None:
            await self.link.close()
        if self._reader is not None:
            await asyncio.wait([self._reader])


def succeed(attempt: str) -> AttemptUpdate:
    return ended(attempt, 0)


def ended(attempt: str, exit_code: int) -> AttemptUpdate:
    return AttemptUpdate(
        attempt=attempt,
        state="finished",
        reason="exited",
        exit_code=exit_code,
        started_at=1_700_000_000_000,
        finished_at=1_700_000_000_001,
        cpu_ms=1,
        peak_memory_bytes=4096,
    )


__all__ = ["ScriptedAgent", "ServerProcess", "Stop", "TaskInfo", "ended", "job", "succeed"]
