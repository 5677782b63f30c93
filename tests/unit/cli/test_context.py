"""Which variables are warned of where a context is chosen: those that count before it, with what helps."""

from __future__ import annotations

import pytest

from towline.cli.cluster.context import warn_of_others

BEFORE_IT = "is set and goes before it: unset it"


@pytest.mark.parametrize(
    ("given", "name", "said"),
    [
        ({}, "lab", ""),
        ({"TOWLINE_SERVER": "https://h"}, "lab", f"TOWLINE_SERVER {BEFORE_IT}\n"),
        ({"TOWLINE_SERVER": "https://h", "TOWLINE_CONTEXT": "lab"}, "lab", f"TOWLINE_SERVER {BEFORE_IT}\n"),
        ({"TOWLINE_CONTEXT": "other"}, "lab", f"TOWLINE_CONTEXT {BEFORE_IT}\n"),
        ({"TOWLINE_CONTEXT": "lab", "TOWLINE_HOME": "/h"}, "lab", ""),
        ({"TOWLINE_HOME": "/h"}, "lab", f"TOWLINE_HOME {BEFORE_IT} (or set TOWLINE_CONTEXT=lab)\n"),
        ({"TOWLINE_HOME": "/h"}, "local", ""),
        ({"TOWLINE_CONTEXT": "lab", "TOWLINE_HOME": "/h"}, "local", f"TOWLINE_CONTEXT {BEFORE_IT}\n"),
    ],
)
def test_what_counts_before_a_context_is_told(
    given: dict[str, str],
    name: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for variable in ("TOWLINE_SERVER", "TOWLINE_CONTEXT", "TOWLINE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    warn_of_others(name)
    assert capsys.readouterr().err == (f"warning: {said}" if said else "")
