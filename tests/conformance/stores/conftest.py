"""Every test that asks for ``store`` runs once on each registered store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.conformance.stores.registry import STORES
from tests.conformance.stores.rows import Writing

from towline.store.port import Store


@pytest.fixture(params=list(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened = STORES[request.param](tmp_path)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def leader(store: Store) -> Writing:
    """Commits to pool ``default`` as its first leader."""
    return await Writing.lead(store, "default")
