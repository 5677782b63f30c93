"""What did not succeed runs again: in ended and in running jobs, also when the server dies over it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tests.e2e.home import Home, Maker

UNTIL_MENDED = "echo attempt $TOW_ATTEMPT; echo $TOW_INDEX > $TOW_OUT/part; test -e {flag}"


def states(job: Any, name: str) -> dict[str, int]:
    (task,) = [task for task in job["tasks"] if task["name"] == name]
    return {state: count for state, count in task["counts"].items() if count}


def broken(home: Home, script: Maker, flag: Path) -> Any:
    """A job of which two of four elements have failed, and what needs them was skipped."""
    work = f"test $TOW_INDEX -lt 2 || {{ {UNTIL_MENDED.format(flag=flag)}; }}"
    job = home.run(
        {
            "prepare": script("date +%N > $TOW_OUT/made"),
            "work": script(work, needs=["prepare"], array=4, inputs={"prepare": "in"}),
            "report": script("cat parts/*/part", needs=["work"], inputs={"work": "parts"}),
        },
        status=1,
    )
    assert (job["state"], states(job, "work")) == ("failed", {"succeeded": 2, "failed": 2})
    return job


def test_an_ended_job_goes_on_where_it_had_failed(home: Home, script: Maker, tmp_path: Path) -> None:
    flag = tmp_path / "mended"
    name = broken(home, script, flag)["id"]
    assert "prepare has succeeded" in home.tow("retry", f"{name}/prepare", status=2).stderr
    flag.touch()
    assert home.json("retry", name)["retried"] == ["work.2-3", "report"]
    view = home.json("wait", name)
    assert view["state"] == "succeeded"
    (elements,) = [task["elements"] for task in view["tasks"] if task["name"] == "work"]
    numbers = [[attempt["number"] for attempt in element["attempts"]] for element in elements]
    assert numbers == [[1], [1], [1, 2], [1, 2]]
    assert home.tow("logs", f"{name}/work.2", "--attempt", "1").stdout == "attempt 1\n"
    assert home.tow("logs", f"{name}/report").stdout == "2\n3\n"
    home.tow("attach", name)  # whose events hold two ends


def test_watching_a_retry_shows_its_own_end(home: Home, script: Maker, tmp_path: Path) -> None:
    flag = tmp_path / "mended"
    name = broken(home, script, flag)["id"]
    again = home.tow("retry", f"{name}/work.2", "--watch", status=1)
    assert "runs again: work.2" in again.stderr
    assert "work.3 failed" in again.stdout
    flag.touch()
    assert "succeeded" in home.tow("retry", name, "--failed", "--watch").stdout


def test_a_retry_stands_when_the_server_is_killed(home: Home, script: Maker, tmp_path: Path) -> None:
    flag = tmp_path / "mended"
    name = broken(home, script, flag)["id"]
    home.tow("retry", name)
    for pid in home.processes()["server"]:
        os.kill(pid, signal.SIGKILL)
    flag.touch()
    home.tow("wait", name, status=None)
    last = home.tow("retry", name, "--watch", status=None)
    assert last.returncode == 0 or "has succeeded" in last.stderr
    numbers = [a["number"] for a in home.json("tasks", f"{name}/work.3")["attempts"]]
    assert numbers == list(range(1, len(numbers) + 1))


def test_what_was_cancelled_runs_again_unless_only_failures_are_meant(home: Home, script: Maker) -> None:
    job = home.submit({"work": script("sleep 60", array=30)})
    home.tow("cancel", job, "--kill")
    assert home.json("wait", job, status=1)["state"] == "cancelled"
    assert "leave out --failed" in home.tow("retry", job, "--failed", status=2).stderr
    home.tow("retry", job)
    view = home.json("job", job)
    assert (view["state"], view["counts"]["cancelled"]) == ("running", 0)
    home.tow("cancel", job, "--kill")
    home.tow("wait", job, status=1)
