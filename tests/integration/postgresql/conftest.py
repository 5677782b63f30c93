"""A PostgreSQL server that a test may stop, fill and refuse, and stores in a part of it for the test
alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests import postgres
from tests.postgres import Postgres

from towline.store.postgresql import PostgresStore


@pytest.fixture(scope="session")
def server() -> Postgres:
    """Of all tests that leave it as they found it."""
    return postgres.shared()


@pytest.fixture(scope="module")
def own_server() -> Iterator[Postgres]:
    """Of one file, whose tests stop it."""
    started = postgres.started()
    yield started
    started.remove()


@pytest.fixture
async def store(server: Postgres, tmp_path: Path) -> AsyncIterator[PostgresStore]:
    opened = PostgresStore(server.own(tmp_path))
    await opened.open()
    yield opened
    await opened.close()
