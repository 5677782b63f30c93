from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.cluster.cluster_server import ClusterServer


@pytest.fixture
async def cluster() -> AsyncIterator[ClusterServer]:
    home = Path(tempfile.mkdtemp(prefix="tow-"))
    made = ClusterServer(home)
    try:
        await made.start()
        await made.with_tokens()
        yield made
    finally:
        await made.close()
        shutil.rmtree(home)
