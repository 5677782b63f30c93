"""One large artifact from a node of a cluster to another one, beside the same bytes copied twice over TLS."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import ssl
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.clusters.joined import start_agent, start_server
from benchmarks.figures import Figure, Options, Report, median_of
from benchmarks.home import Home, fresh_home
from benchmarks.shipping import peak_of, seconds
from towline.client import Client
from towline.identity.certificates import make_authority, make_key, sign_server
from towline.server.access.authority import utc_now

BLOCK_BYTES = 1 << 20
BLOCKS = 500
WRITES = """
import os, sys
block = os.urandom(1 << 20)
with open(os.environ["TOW_OUT"] + "/large", "wb") as file:
    for number in range(int(sys.argv[1])):
        file.write(number.to_bytes(8, "big") + block[8:])
"""
READS = "import os, sys; assert os.path.getsize('in/large') == int(sys.argv[1]) << 20"


class _Moved(NamedTuple):
    """Seconds from the writer's end until the server has all of it, and from then until the reader starts."""

    up_s: float
    down_s: float


def run(options: Options) -> Report:
    """Up and down, in turn with two copies over TLS, the first of which is synced."""
    blocks = options.count(BLOCKS)
    size_mb = blocks * BLOCK_BYTES / 1e6
    moved: list[_Moved] = []
    floors: list[float] = []
    with ExitStack() as stack:
        server, *nodes = (stack.enter_context(fresh_home()) for _ in range(3))
        port = start_server(server)
        agents = [start_agent(server, node, port, f"n{at}") for at, node in enumerate(nodes)]
        pids = [server.pid("server"), *(agent.pid for agent in agents)]
        peaks = [stack.enter_context(peak_of(pid)) for pid in pids]
        for _ in range(options.pairs):
            floors.append(_floor_s(server.path, blocks))
            moved.append(asyncio.run(_moved(server, blocks)))
    return Report(
        name="artifacts",
        title="an artifact from one node to another",
        method=f"{size_mb:,.0f} MB in one file, from the end of the task that wrote it until the one that "
        "needs it starts on the other node; server and two agents on one machine over TLS, in turn with one "
        "process that sends, checks and writes as much over TLS twice, the first time synced to the disk, "
        f"{options.pairs} times",
        figures=[
            median_of("to the server's disk", [size_mb / one.up_s for one in moved], "MB/s"),
            median_of("to the other node", [size_mb / one.down_s for one in moved], "MB/s"),
            median_of("both, one after another", [size_mb / sum(one) for one in moved], "MB/s"),
            median_of("copied twice over TLS", [size_mb / one for one in floors], "MB/s"),
            median_of("moved / copied", [floor / sum(one) for floor, one in zip(floors, moved, strict=True)]),
            *(
                Figure(name=f"memory at most (RSS), {role}", value=peak.rss_mb, unit="MB")
                for role, peak in zip(("server", "writer's agent", "reader's agent"), peaks, strict=True)
            ),
        ],
    )


async def _moved(server: Home, blocks: int) -> _Moved:
    python = [sys.executable, "-I", "-S", "-c"]
    plain = {"runtime": "process", "resources": {"cpu": 0.1, "memory": "64Mi"}}
    tasks = {
        "make": {**plain, "command": [*python, WRITES, str(blocks)], "where": {"node": "n0"}},
        "use": {
            **plain, "command": [*python, READS, str(blocks)], "where": {"node": "n1"},
            "needs": ["make"], "inputs": {"make": "in"},
        },
    }  # fmt: skip
    path = server.path / "artifacts.json"
    path.write_text(json.dumps({"name": "artifacts", "tasks": tasks}))
    async with Client(server.path / "tow.sock") as client:
        job = await client.submit(path)
        await job.wait()
        (made,) = (await job.task("make")).elements
        (used,) = (await job.task("use")).elements
    assert used.state == "succeeded", used
    wrote, read = made.attempts[-1], used.attempts[-1]
    assert wrote.finished_at is not None
    assert read.started_at is not None
    there_s = seconds(read.assigned_at)
    return _Moved(there_s - seconds(wrote.finished_at), seconds(read.started_at) - there_s)


# --- the floor ----------------------------------------------------------------------------------------
def _floor_s(folder: Path, blocks: int) -> float:
    """Copy a file over TLS to another one, checked by digest, and that to a third one."""
    first, second, third = (folder / name for name in ("first", "second", "third"))
    block = os.urandom(BLOCK_BYTES)
    with first.open("wb") as file:
        for number in range(blocks):
            file.write(number.to_bytes(8, "big") + block[8:])
    begin = time.perf_counter()
    _copy(folder, first, second, synced=True)
    _copy(folder, second, third, synced=False)
    took_s = time.perf_counter() - begin
    for path in (first, second, third):
        path.unlink()
    return took_s


def _copy(folder: Path, source: Path, target: Path, *, synced: bool) -> None:
    server, client = _contexts(folder)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sending = threading.Thread(target=_send, args=(listener, server, source))
        sending.start()
        with (
            socket.create_connection(listener.getsockname()) as plain,
            client.wrap_socket(plain, server_hostname="localhost") as secure,
            target.open("wb", buffering=0) as file,
        ):
            digest = hashlib.sha256()
            while data := secure.recv(BLOCK_BYTES):
                digest.update(data)
                file.write(data)
            if synced:
                os.fsync(file.fileno())
        sending.join()


def _send(listener: socket.socket, context: ssl.SSLContext, source: Path) -> None:
    plain, _ = listener.accept()
    with context.wrap_socket(plain, server_side=True) as secure, source.open("rb", buffering=0) as file:
        while data := file.read(BLOCK_BYTES):
            secure.sendall(data)


def _contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(of the side that sends, of the one that receives)."""
    authority = make_authority("floor", 1, utc_now())
    key = make_key()
    pair = folder / "floor.pem"
    pair.write_bytes(key + sign_server(authority, key, ["localhost"], 1, utc_now()))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair)
    client = ssl.create_default_context(cadata=authority.certificate.decode())
    return server, client
