"""The images and registries that these tests use."""

from pathlib import Path

import pytest
from tests.containers import busybox_image
from tests.images import Layout
from tests.registry import closed_registry, registry

from towline.images import ImageStore

__all__ = ["busybox_image", "closed_registry", "registry"]


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def made(tmp_path: Path) -> Layout:
    """A layout that a test fills."""
    return Layout(tmp_path / "made")
