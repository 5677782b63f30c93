"""What tests with real containers share: the small image that they run.

from tests.containers import busybox_image      # in a conftest.py, as a fixture
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TAG = "1.36"


def build_busybox_image(layout: Path) -> str:
    """Build Debian's static busybox as an OCI layout; returns the reference for a job file's ``image``."""
    script = ROOT / "scripts" / "build-busybox-image.sh"
    result = subprocess.run([script, layout, TAG], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return f"oci:{layout}:{TAG}"


@pytest.fixture(scope="session")
def busybox_image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The reference of an image with busybox alone, ``oci:PATH:1.36``."""
    return build_busybox_image(tmp_path_factory.mktemp("images") / "busybox")
