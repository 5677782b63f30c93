"""The model of the leases in docs/models: searched to its end, and it finds something where a rule is
missing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parents[2] / "docs" / "models" / "lease.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lease_model", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["lease_model"] = module
    spec.loader.exec_module(module)
    return module


model = _load()


def test_no_promise_is_ever_broken() -> None:
    found = model.search(model.SMALL)
    assert found.promise is None, "\n".join(found.path)
    assert found.states > 100_000


@pytest.mark.parametrize("guard", list(model.GUARDS))
def test_a_rule_that_is_missing_is_found_out(guard: str) -> None:
    found = model.search(model.bounds_without(guard), frozenset({guard}))
    assert found.promise is not None
    assert 0 < len(found.path) < 40
