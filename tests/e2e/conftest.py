from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import guard
from tests.containers import busybox_image as busybox_image
from tests.e2e.clustered import CLUSTERED, ClusterHome, chosen
from tests.e2e.fleet import Fleet
from tests.e2e.home import Home, Maker

RUNTIMES = ["process", pytest.param("oci", marks=pytest.mark.containers)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Where a test of a fleet fails, its report tells how the fleet stands then."""
    try:
        yield
    except BaseException:
        fleet = getattr(item, "funcargs", {}).get("fleet")
        if isinstance(fleet, Fleet):
            print(fleet.situation())  # noqa: T201
        raise


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    if CLUSTERED:
        clustered = ClusterHome(tmp_path)
        try:
            yield clustered
        finally:
            clustered.close()
        return
    # Not below tmp_path: the name of a Unix socket has to be short.
    folder = Path(tempfile.mkdtemp(prefix="tow-"))
    guard.watch(folder)
    made = Home(folder, tmp_path)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)
        guard.forget(folder)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen(config, items)


@pytest.fixture(params=RUNTIMES)
def task(request: pytest.FixtureRequest) -> Maker:
    """Makes tasks that run a shell script, once for each runtime."""
    if request.param == "process":
        return Maker()
    return Maker(request.getfixturevalue("busybox_image"))


@pytest.fixture
def script() -> Maker:
    """Makes tasks that run a shell script as a plain process."""
    return Maker()


@pytest.fixture(autouse=True)
def no_home_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that forgets its own home must not meet the developer's."""
    monkeypatch.setitem(os.environ, "TOWLINE_HOME", "/nonexistent")
