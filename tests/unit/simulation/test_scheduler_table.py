"""The benchmark's table: what counts as reached, and how outcomes of an interrupted run are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.scheduler.__main__ import main
from benchmarks.scheduler.keeping import Kept
from benchmarks.scheduler.openb import details, gains_and_losses
from benchmarks.scheduler.rows import Row, table

from towline.simulation.traces.inflation import Outcome


def row(ours: float, *, lower: bool = False) -> Row:
    return Row(measure="m", unit="%", ours=ours, must=2, aim=1 if lower else 3, lower=lower, other=True)


def test_a_bound_is_from_below_or_from_above() -> None:
    assert [row(ours).verdict for ours in (1.5, 2, 3)] == ["MISSED by 0.500", "must", "aim"]
    assert [row(ours, lower=True).verdict for ours in (1, 1.5, 2.5)] == ["aim", "must", "MISSED by 0.500"]


def test_the_table_marks_other_measures_and_names_what_is_missed() -> None:
    lines = list(table([row(1.5), row(3)]))
    assert lines[2].startswith("m") and "—*" in lines[2]
    assert any(line.startswith("*  another measure") for line in lines)
    assert lines[-1] == "1 of 2 reached; missed: m"


def test_gains_and_losses_are_of_the_worst_trace() -> None:
    ours = [Outcome({90: 90.0, 100: 95.0, 130: 96.0}, 10, 100)]
    worse = [Outcome({90: 90.0, 100: 95.1, 130: 95.0}, 12, 100)]
    better = [Outcome({90: 89.0, 100: 94.0, 130: 95.0}, 9, 100)]
    found = {"default": {"headroom": ours, "fgd": worse}, "cpu050": {"headroom": ours, "fgd": better}}
    least, most = gains_and_losses(found)
    assert least == (pytest.approx(-0.1), "default at 100 %")
    assert most == (1, "cpu050")
    assert len(details(found)) == 7


def test_outcomes_are_kept_by_trace_seed_and_policy(tmp_path: Path) -> None:
    outcome = Outcome({90: 90.0, 100: 95.25}, 7, 100)
    Kept(tmp_path / "kept.jsonl").add("default", 42, "fgd", outcome)
    again = Kept(tmp_path / "kept.jsonl")
    assert again.find("default", 42, "fgd") == outcome
    assert again.find("default", 43, "fgd") is None
    assert Kept(None).find("default", 42, "fgd") is None


@pytest.mark.parametrize("wrong", [["nothing"], ["--seeds", "9-3"], ["--pods", "all"], ["--traces", "none"]])
def test_bad_options_are_refused(
    wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("openb", "swf"):
        (tmp_path / name).mkdir()
    with pytest.raises(SystemExit) as ended:
        main(["--traces", str(tmp_path), *wrong])
    assert ended.value.code == 2
    assert wrong[-1] in capsys.readouterr().err
