"""Every test that asks for ``node`` runs once with each registered runtime."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.conformance.runtimes.node import MakePlan, Node
from tests.conformance.runtimes.registry import RUNTIMES

_PARAMS = [
    pytest.param(name, marks=[getattr(pytest.mark, m) for m in r.marks]) for name, r in RUNTIMES.items()
]

_SLOW_WHOLE = os.environ.get("TOWLINE_SLOW_ENGINES") == "1"
_OF_SLOW = (
    "test_an_end_that_nobody_saw_is_known",
    "test_binary_output",
    "test_both_streams",
    "test_exit_codes",
    "test_its_directory_goes",
    "test_stop_at_once",
    "test_what_runs_is_adopted",
)
"""What is asked of a slow engine in every run; ``make torture`` asks everything of it."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is about keeper and supervisor is not asked of a runtime that has neither, and a kill of either
    is the same there: of those that would kill one process under several names, one is left."""
    gone = [item for item in items if _is_of_supervision(item)]
    config.hook.pytest_deselected(items=gone)
    items[:] = [item for item in items if item not in gone]


def _is_of_supervision(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        return False
    params = item.callspec.params if hasattr(item, "callspec") else {}
    runtime = RUNTIMES.get(params.get("make_plan", ""))
    if runtime is None or runtime.supervised:
        return False
    if runtime.slow and not _SLOW_WHOLE and item.originalname not in _OF_SLOW:
        return True
    if runtime.slow and item.get_closest_marker("thorough") is not None:
        return True
    return item.get_closest_marker("supervision") is not None or params.get("who") in ("keeper", "both")


@pytest.fixture(scope="session", params=_PARAMS)
def make_plan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MakePlan:
    return RUNTIMES[request.param].prepare(tmp_path_factory.mktemp(request.param))


@pytest.fixture
def node(make_plan: MakePlan, request: pytest.FixtureRequest) -> Iterator[Node]:
    node = RUNTIMES[request.node.callspec.params["make_plan"]].node(make_plan)
    node.connect()
    yield node
    node.close()
