"""A server that starts while its database is away waits for it; what no wait helps ends it at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.server_process import PATIENCE_S, ServerProcess
from tests.ports import free_port
from tests.postgres import Postgres

AWAY = "the store is away, and is waited for"


@pytest.fixture
async def server(own_server: Postgres, tmp_path: Path) -> AsyncIterator[ServerProcess]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    url = own_server.own(tmp_path)
    made = ServerProcess(home, TOWLINE_STORE_URL=url, TOWLINE_LISTEN=f"127.0.0.1:{free_port()}")
    yield made
    await made.close()


async def ended(server: ServerProcess, url: str, wait: str) -> tuple[int, str]:
    """Its exit status, and what it said."""
    server._environ |= {"TOWLINE_STORE_URL": url}
    server.process = server._spawn(("--without-agent", "--store-wait", wait))
    status = await server.ended()
    return status, server.log()


async def test_a_database_that_starts_later_is_waited_for(
    own_server: Postgres, server: ServerProcess
) -> None:
    await asyncio.to_thread(own_server.stop)
    try:
        server.process = server._spawn(("--without-agent",))
        async with asyncio.timeout(PATIENCE_S):
            while AWAY not in server.log():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert "it cannot be reached: look whether it runs" in server.log()
        assert server.process.poll() is None
    finally:
        own_server.start()
    await server.until_ready()
    assert server.log().count(AWAY) < PATIENCE_S  # some seconds lie between two lines


async def test_it_is_waited_for_as_long_as_is_said(own_server: Postgres, server: ServerProcess) -> None:
    url = server._environ["TOWLINE_STORE_URL"]
    await asyncio.to_thread(own_server.stop)
    try:
        status, said = await ended(server, url, "300ms")
    finally:
        own_server.start()
    assert status == 1
    assert AWAY in said
    assert said.splitlines()[-1].startswith("tow server: postgresql://towline@")
    assert "it cannot be reached: look whether it runs" in said.splitlines()[-1]


async def test_a_wrong_name_or_schema_ends_it_at_once(
    own_server: Postgres, server: ServerProcess, tmp_path: Path
) -> None:
    url = server._environ["TOWLINE_STORE_URL"]
    status, said = await ended(server, url.replace("/towline?", "/elsewhere?"), "1d")
    assert (status, AWAY in said) == (2, False)
    assert "there is no such database: make it first, with createdb" in said
    status, said = await ended(server, url.replace("://towline@", "://nobody@"), "1d")
    assert (status, AWAY in said) == (2, False)
    assert "the login is refused" in said
    other = own_server.own(tmp_path / "other")
    schema = other.rpartition("=")[2]
    own_server.run(f"CREATE TABLE {schema}.letters (text TEXT)")
    status, said = await ended(server, other, "1d")
    assert (status, AWAY in said) == (2, False)
    assert "is a database of something else: make one for Towline alone" in said


async def test_a_wait_that_is_no_time_is_refused(server: ServerProcess) -> None:
    status, said = await ended(server, server._environ["TOWLINE_STORE_URL"], "soon")
    assert status == 2
    assert "store_wait is 'soon': a time is 30s, 2m, 1h30m" in said
