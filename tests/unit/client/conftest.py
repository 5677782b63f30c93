from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.unit.client.canned import Canned


@pytest.fixture
async def canned(tmp_path: Path) -> AsyncIterator[Canned]:
    server = Canned(tmp_path / "tow.sock")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def closed_socket(tmp_path: Path) -> Callable[[], Path]:
    """A socket file that nobody listens on: connections are refused."""

    def make() -> Path:
        path = tmp_path / "tow.sock"
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        return path

    return make
