"""Jobs of real processes and real containers, from the file to the exit status."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.home import Home, Maker


def task_of(job: Any, name: str) -> Any:
    return next(task for task in job["tasks"] if task["name"] == name)


def element_of(job: Any, name: str, index: int = 0) -> Any:
    return next(element for element in task_of(job, name)["elements"] if element["index"] == index)


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_tasks_run_in_the_order_of_their_needs(home: Home, task: Maker) -> None:
    job = home.run(
        {
            "last": task("true", needs=["left", "right"]),
            "left": task("sleep 0.1", needs=["first"]),
            "right": task("true", needs=["first"]),
            "first": task("sleep 0.1"),
        }
    )
    assert job["state"] == "succeeded"
    times = {
        t["name"]: (
            at(t["elements"][0]["attempts"][0]["started_at"]),
            at(t["elements"][0]["attempts"][0]["finished_at"]),
        )
        for t in job["tasks"]
    }
    for before, after in [("first", "left"), ("first", "right"), ("left", "last"), ("right", "last")]:
        assert times[before][1] <= times[after][0], (before, after)


def test_outputs_become_inputs_of_arrays_and_after_them(home: Home, task: Maker) -> None:
    parts, sizes = task.place("/in/split"), task.place("/in/count")
    job = home.run(
        {
            "split": task("for i in 0 1 2 3; do echo part $i > $TOW_OUT/part-$i; done"),
            "count": task(
                f"wc -c < {parts}/part-$TOW_INDEX > $TOW_OUT/size; echo $TOW_VALUE >> $TOW_OUT/size",
                needs=["split"],
                array=["a", "b", "c", "d"],
                inputs={"split": parts},
            ),
            "report": task(f"cat {sizes}/*/size", needs=["count"], inputs={"count": sizes}),
        }
    )
    assert task_of(job, "count")["counts"]["succeeded"] == 4
    lines = home.tow("logs", f"{job['id']}/report").stdout.split()
    assert lines == ["7", "a", "7", "b", "7", "c", "7", "d"]


def test_failures_are_retried_with_backoff(home: Home, task: Maker) -> None:
    started = time.monotonic()
    job = home.run(
        {
            "flaky": task(
                'test "$TOW_ATTEMPT" = 3 || exit 7',
                retries={"limit": 2, "backoff": {"first": "200ms", "factor": 2, "jitter": 0}},
            )
        }
    )
    assert time.monotonic() - started > 0.6
    attempts = element_of(job, "flaky")["attempts"]
    assert [(a["number"], a["exit_code"], a["reason"]) for a in attempts] == [
        (1, 7, "exited"),
        (2, 7, "exited"),
        (3, 0, "exited"),
    ]
    first, second, third = attempts
    assert at(second["started_at"]) - at(first["finished_at"]) >= 0.195
    assert at(third["started_at"]) - at(second["finished_at"]) >= 0.395


def test_what_needs_a_failure_is_skipped_and_the_rest_goes_on(home: Home, task: Maker) -> None:
    job = home.run(
        {
            "bad": task("echo it breaks >&2; exit 3"),
            "after": task("true", needs=["bad"]),
            "other": task("true"),
        },
        status=1,
    )
    assert (job["state"], job["reason"]) == ("failed", "task_failed")
    assert {t["name"]: t["state"] for t in job["tasks"]} == {
        "bad": "failed",
        "after": "skipped",
        "other": "succeeded",
    }
    assert element_of(job, "bad")["exit_code"] == 3
    shown = home.tow("run", home.job_file({"bad": task("echo it breaks >&2; exit 3")}), status=1).stdout
    assert "bad failed: exited with code 3" in shown
    (row,) = [line for line in home.tow("tasks", job["id"]).stdout.splitlines() if line.startswith("bad ")]
    assert row.endswith("exited with code 3")
    assert "  | it breaks" in shown
    assert "tow logs" in shown


def test_timeout_ends_what_runs_too_long(home: Home, task: Maker) -> None:
    job = home.run({"slow": task("echo begun; exec sleep 100", timeout="500ms", grace="1s")}, status=1)
    element = element_of(job, "slow")
    assert element["reason"] == "timed_out"
    assert "timeout" in element["message"]
    assert home.tow("logs", f"{job['id']}/slow").stdout == "begun\n"


def test_cancel_asks_first_and_kills_after_the_grace(home: Home, task: Maker) -> None:
    polite = "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    stubborn = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done"
    for name, script, grace in (("polite", polite, "30s"), ("stubborn", stubborn, "300ms")):
        job = home.submit({"a": task(script, grace=grace)}, name=name)
        follower = home.start("logs", job, "-f", "--stream", "stdout")
        assert follower.stdout is not None
        assert follower.stdout.readline() == "ready\n"
        home.tow("cancel", job)
        ended = home.json("wait", job, status=1)
        assert ended["state"] == "cancelled"
        attempt = element_of(ended, "a")["attempts"][-1]
        assert attempt["reason"] == "cancelled"
        assert follower.communicate()[0] == "asked\n"
        assert attempt["signal"] == (9 if name == "stubborn" else None)
    assert home.payloads() == []


def test_cancel_takes_what_was_never_started(home: Home, task: Maker) -> None:
    job = home.submit({"a": task("sleep 100", array=100_000), "b": task("true", needs=["a"])})
    home.tow("cancel", f"{job}/a.99999")
    home.tow("cancel", job, "--kill")
    ended = home.json("wait", job, status=1)
    assert ended["state"] == "cancelled"
    assert ended["counts"]["cancelled"] + ended["counts"]["skipped"] == 100_001


def test_wrong_command_is_a_start_that_failed(home: Home, task: Maker) -> None:
    job = home.run({"a": {**task(""), "command": ["no-such-program"]}}, status=1)
    element = element_of(job, "a")
    assert element["reason"] == "start_failed"
    assert "no-such-program" in element["message"]


def test_output_goes_where_it_was_written(home: Home, task: Maker) -> None:
    script = "echo out; echo err >&2; echo again > /dev/stderr; echo more >> /dev/stdout; echo last >&2"
    job = home.run({"a": task(script)})
    logs = ["logs", f"{job['id']}/a"]
    assert home.tow(*logs, "--stream", "stdout").stdout == "out\nmore\n"
    assert home.tow(*logs, "--stream", "stderr").stdout == "err\nagain\nlast\n"
    assert sorted(home.tow(*logs).stdout.split()) == sorted(["out", "err", "again", "more", "last"])
    assert home.tow(*logs, "--stream", "stderr", "--tail", "2").stdout == "again\nlast\n"
    stamped = home.tow(*logs, "--timestamps", "--stream", "stdout").stdout.splitlines()
    assert all(abs(at(line.split()[0]) - time.time()) < 600 for line in stamped)


def test_binary_output_is_kept_byte_for_byte(home: Home, task: Maker, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    data = os.urandom(3_000_000)
    (tmp_path / "data" / "random").write_bytes(data)
    mount = {"source": "./data", "target": "/data", "readonly": True}
    fields = {"mounts": [mount]} if task.image else {}
    source = "/data/random" if task.image else str(tmp_path / "data" / "random")
    job = home.run({"a": task(f"cat {source}; cat {source} >&2", **fields)})
    for stream in ("stdout", "stderr"):
        found = home.tow("logs", f"{job['id']}/a", "--stream", stream, text=False).stdout
        assert found == data


def test_much_output_a_second_is_kept_whole(home: Home, task: Maker) -> None:
    script = "i=0; while [ $i -lt 30 ]; do head -c 1000000 /dev/zero; i=$((i+1)); done"
    job = home.run({"a": task(script)})
    found = home.tow("logs", f"{job['id']}/a", text=False).stdout
    assert found == bytes(30_000_000)
    attempt = element_of(job, "a")["attempts"][0]
    assert 30_000_000 / (at(attempt["finished_at"]) - at(attempt["started_at"])) > 10_000_000


def test_a_command_passes_its_output_and_its_failure_on(home: Home) -> None:
    done = home.tow(
        "run", "--runtime", "process", "--", "sh", "-c", "echo out; echo err >&2; exit 5", status=1
    )
    assert done.stdout.splitlines()[0] == "out"
    assert "err\n" in done.stderr
    assert "exited with code 5" in done.stdout + done.stderr


@pytest.mark.containers
def test_memory_over_the_limit_is_told_as_such(home: Home, busybox_image: str) -> None:
    hungry = {
        "image": busybox_image,
        "command": ["sh", "-c", "x=0123456789; while :; do x=$x$x; done"],
        "resources": {"cpu": 0.5, "memory": "16Mi"},
    }
    element = element_of(home.run({"a": hungry}, status=1), "a")
    assert element["reason"] == "oom_killed"
    assert "memory" in element["message"]


@pytest.mark.containers
def test_missing_images_are_told_as_such(home: Home, busybox_image: str) -> None:
    for image in (busybox_image.replace("1.36", "9.99"), "oci:./nowhere:1"):
        job = home.run({"a": {"image": image, "command": ["true"]}}, status=1)
        assert element_of(job, "a")["reason"] == "image_not_found"
