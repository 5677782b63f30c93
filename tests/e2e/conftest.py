from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.containers import busybox_image as busybox_image
from tests.e2e.clustered import CLUSTERED, FleetLender, chosen
from tests.e2e.fleet import Fleet
from tests.e2e.home import Home, Maker
from tests.e2e.lending import Lender, close, new_folder, settings

FAILED = pytest.StashKey[bool]()
RUNTIMES = ["process", pytest.param("oci", marks=pytest.mark.containers)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Where a test of a fleet fails, its report tells how the fleet stands then."""
    try:
        yield
    except BaseException:
        item.stash[FAILED] = True
        fleet = getattr(item, "funcargs", {}).get("fleet")
        if isinstance(fleet, Fleet):
            print(fleet.situation())  # noqa: T201
        raise


@pytest.fixture(scope="session")
def lender(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lender]:
    made = FleetLender(tmp_path_factory.getbasetemp()) if CLUSTERED else Lender()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def home(request: pytest.FixtureRequest, tmp_path: Path, lender: Lender) -> Iterator[Home]:
    """One that tests have one after the other, or the test's own where it is marked ``own_home``. In a
    cluster it is the test's own where it has settings, or where the mark says ``own_home("cluster")``."""
    own = request.node.get_closest_marker("own_home")
    if own and not CLUSTERED:
        made = Home(new_folder(), tmp_path)
        try:
            yield made
        finally:
            close(made)
        return
    made = lender.lend(tmp_path, alone=own is not None and "cluster" in own.args)
    given = dict(made.env)
    try:
        yield made
        told = {} if CLUSTERED else settings(given, made.env)
        assert not told, f"mark this test own_home: other tests would have its {', '.join(told)}"
    except BaseException:
        request.node.stash[FAILED] = True
        raise
    finally:
        lender.take_back(made, failed=request.node.stash.get(FAILED, False))


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
