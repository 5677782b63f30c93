"""What becomes of output that its reader takes slowly, or that cannot be written at all."""

from __future__ import annotations

import subprocess

import pytest
from tests.e2e.home import TOW, Home, Maker

CLOSED_OR_FULL = [">/dev/full", ">&-"]


def shell(home: Home, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line in which $TOW is the command."""
    home.ready()
    return subprocess.run(
        ["sh", "-c", line],
        env={**home.env, "TOW": TOW[0]},
        cwd=home.work,
        capture_output=True,
        text=True,
        check=False,
    )


def assert_one_sentence(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 1, done
    assert done.stderr.startswith("error: stdout cannot be written: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("where", CLOSED_OR_FULL)
@pytest.mark.parametrize("command", ["version", "--help", "schema"])
def test_unwritable_stdout_without_a_server_is_one_sentence(home: Home, command: str, where: str) -> None:
    assert_one_sentence(shell(home, f'"$TOW" {command} {where}'))


@pytest.mark.parametrize("where", CLOSED_OR_FULL)
def test_unwritable_stdout_is_one_sentence_and_a_failure(home: Home, script: Maker, where: str) -> None:
    write = "echo $TOW_INDEX; head -c 3000000 /dev/zero > $TOW_OUT/big"
    job = home.submit({"a": script(write, array=2)})
    home.tow("wait", job)
    commands = [
        "jobs -n 1000",
        "jobs --json",
        f"job {job}",
        f"logs {job}",
        f"logs {job} -f",
        f"logs {job}/a.1",
    ]
    commands.append(f"artifacts get {job}/a.1 big -o -")
    for command in commands:
        assert_one_sentence(shell(home, f'"$TOW" {command} {where}'))


@pytest.mark.parametrize("where", CLOSED_OR_FULL)
def test_accepted_job_is_named_though_stdout_is_unwritable(home: Home, script: Maker, where: str) -> None:
    done = shell(home, f'"$TOW" submit {home.job_file({"a": script("true")})} {where}')
    assert done.returncode == 1
    (job,) = home.jobs()
    said = done.stderr.splitlines()
    assert said[0] == f"The job is accepted all the same: {job['id']}"
    assert said[1].startswith("error: stdout cannot be written: ")


def test_closed_or_full_stderr_changes_nothing_else(home: Home) -> None:
    for where in ("2>&-", "2>/dev/full", "<&-"):
        done = shell(home, f'"$TOW" version {where}')
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout
    assert shell(home, '"$TOW" job nothing 2>&-').returncode == 2
    assert shell(home, '"$TOW" job nothing 2>/dev/full').returncode == 2


def test_passed_through_output_on_a_full_disk_is_an_error(home: Home) -> None:
    done = shell(home, '"$TOW" run --runtime process -- echo hello >/dev/full')
    assert done.returncode == 1
    assert "error: stdout cannot be written: No space left on device.\n" in done.stderr


def test_passed_through_output_whose_reader_goes_away(home: Home) -> None:
    line = '{ "$TOW" run --runtime process -- seq 1 3000000; echo $? >status; } | head -n 1'
    assert shell(home, line).stdout == "1\n"
    assert (home.work / "status").read_text() == "141\n"


def test_passed_through_output_is_whole(home: Home) -> None:
    done = shell(home, '"$TOW" run --runtime process -- seq 1 3000000 | tail -n 1')
    assert done.stdout == "3000000\n"


def test_json_logs_of_the_only_element_name_it(home: Home, script: Maker) -> None:
    job = home.submit({"a": script("echo hi")})
    home.tow("wait", job)
    for options in ([], ["-f"]):
        found = home.json("logs", job, *options)
        assert (found["task"], found["index"], found["attempt"]) == ("a", 0, 1)
        assert "".join(entry["text"] for entry in found["entries"]) == "hi\n"


def test_cancelling_what_only_waits_says_that_it_is_cancelled(home: Home, script: Maker) -> None:
    busy = home.submit({"a": script("sleep 600", array=64, resources={"cpu": 1})}, name="busy")
    queued = home.submit({"a": script("true", resources={"cpu": 1})}, name="queued")
    assert (
        home.tow("cancel", queued).stderr == f"Cancelled {queued}: queued ({queued}) has ended: cancelled.\n"
    )
    assert home.tow("cancel", queued).stderr == f"queued ({queued}) had ended already: cancelled.\n"
    home.tow("cancel", busy, "--kill")


def test_job_whose_progress_cannot_be_written_is_left_and_named(home: Home, script: Maker) -> None:
    done = shell(home, f'"$TOW" run {home.job_file({"a": script("true")})} >/dev/full')
    (job,) = home.jobs()
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"job is left to itself. See how it goes with: tow job {job['id']}",
        "error: stdout cannot be written: No space left on device.",
    ]
