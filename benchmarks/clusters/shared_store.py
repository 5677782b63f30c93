"""Servers on one PostgreSQL, for benchmarks: each in a home of its own, with simulated nodes where wanted."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from tests.postgres import Postgres, started

from benchmarks.clusters.joined import start_server
from benchmarks.clusters.simulated import enrolled
from benchmarks.home import Home, cpu_of, fresh_home
from towline.client import Client
from towline.client.cluster.pools import Pools
from towline.server.vault import KEY_FILE
from towline.store import make_store

_TOP = Path(__file__).parent.parent.parent


@contextmanager
def servers(count: int, **settings: str) -> Generator[tuple[list[Home], Postgres], None, None]:
    """``settings`` are the database's. All of them run; the first has come before the others."""
    with ExitStack() as stack:
        database = started(**settings)
        stack.callback(database.remove)
        homes = [stack.enter_context(fresh_home()) for _ in range(count)]
        for at, home in enumerate(homes):
            home.env |= {
                "TOWLINE_STORE_URL": database.url,
                "TOWLINE_OBJECT_STORE": f"file://{homes[0].path}/objects",
                "TOWLINE_SHARED_FILES": "true",
                "TOWLINE_ADDRESS": "127.0.0.1",
            }
            if at:
                shutil.copy(homes[0].path / KEY_FILE, home.path / KEY_FILE)
            start_server(home)
        yield homes, database


def port_of(home: Home) -> int:
    return int(home.env["TOWLINE_LISTEN"].rpartition(":")[2])


def make_pools(home: Home, *pools: str) -> None:
    async def make() -> None:
        async with Client(home.path / "tow.sock") as client:
            for pool in pools:
                await Pools(client).create(pool)

    asyncio.run(make())


@contextmanager
def nodes(
    database: Postgres, homes: Sequence[Home], count: int, pool: str = ""
) -> Generator[None, None, None]:
    """Simulated ones of a pool, in a process of their own; linked when this yields."""
    store = make_store(database.url, homes[0].path)
    members = asyncio.run(enrolled(store, homes[0].path, count, pool))
    file = homes[0].path / f"members-{pool}"
    file.write_bytes(msgspec.msgpack.encode(members))
    server = f"https://{homes[0].env['TOWLINE_LISTEN']}"
    command = [sys.executable, "-m", "benchmarks.clusters.simulated", server, str(file)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_TOP)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"the nodes of the pool {pool or 'default'} are not linked")
        yield
    finally:
        process.kill()
        process.communicate()


def database_cpu_s(database: Postgres) -> float:
    """CPU seconds of its processes that run now, and of those that have ended."""
    return sum(cpu_of(database.pid)) + sum(cpu_of(pid)[0] for pid in database.children())
