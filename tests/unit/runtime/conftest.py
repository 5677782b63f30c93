"""A process that runs containers for these tests, as the supervisor does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.container_host import ISOLATIONS, Host, start_host
from tests.containers import busybox_image

from towline.images import Image, ImageStore

__all__ = ["busybox_image"]


@pytest.fixture(scope="session")
def image(busybox_image: str, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The unpacked busybox image."""
    return asyncio.run(ImageStore(tmp_path_factory.mktemp("store")).ensure(busybox_image, None))


@pytest.fixture(scope="session")
def _shared_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with start_host(tmp_path_factory.mktemp("node")) as host:
        yield host


@pytest.fixture(params=ISOLATIONS)
def host(_shared_host: Host, image: Image, tmp_path: Path, request: pytest.FixtureRequest) -> Host:
    """Containers of busybox; whatever a test leaves running is ended."""
    return _shared_host.of(image, tmp_path, ISOLATIONS[request.param])
