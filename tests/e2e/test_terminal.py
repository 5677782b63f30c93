"""A person at a terminal: Ctrl-C, a lost terminal, attaching, the live display."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess

from tests.e2e.home import Home, Maker, until

POLITE = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done"
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


def running_job(home: Home) -> str:
    """The id of the only job, once its element has written something."""
    (job,) = until(home.jobs, "the job is there")
    follower = home.start("logs", job["id"], "-f")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "ready\n"
    follower.kill()
    follower.communicate()
    return str(job["id"])


def test_first_interrupt_cancels_and_waits(home: Home, script: Maker) -> None:
    command = home.start("run", home.job_file({"a": script(POLITE)}))
    job = running_job(home)
    command.send_signal(signal.SIGINT)
    out, err = command.communicate()
    assert command.returncode == 130
    assert "Cancelling job" in err
    assert "cancelled" in out
    assert home.json("job", job)["state"] == "cancelled"


def test_second_interrupt_kills(home: Home, script: Maker) -> None:
    command = home.start("run", home.job_file({"a": script(STUBBORN, grace="10m")}))
    job = running_job(home)
    assert command.stderr is not None
    command.send_signal(signal.SIGINT)
    until(lambda: "Cancelling" in command.stderr.readline(), "it says that it cancels")
    command.send_signal(signal.SIGINT)
    command.communicate()
    assert command.returncode == 130
    attempt = home.json("job", job)["tasks"][0]["elements"][0]["attempts"][0]
    assert (attempt["reason"], attempt["signal"]) == ("cancelled", 9)


def test_interrupt_of_a_passed_through_command(home: Home) -> None:
    command = home.start("run", "--runtime", "process", "--", "sh", "-c", POLITE)
    assert command.stdout is not None
    assert command.stdout.readline() == "ready\n"
    command.send_signal(signal.SIGINT)
    command.communicate()
    assert command.returncode == 130
    assert home.json("jobs")["jobs"][0]["state"] == "cancelled"


def test_lost_terminal_and_detaching_leave_the_job_running(home: Home, script: Maker) -> None:
    command = home.start("run", home.job_file({"a": script(POLITE)}))
    job = running_job(home)
    command.send_signal(signal.SIGHUP)
    command.communicate()
    assert home.json("job", job)["state"] == "running"
    attached = home.start("attach", job)
    assert attached.stdout is not None
    assert "a: started" in attached.stdout.readline()
    attached.send_signal(signal.SIGINT)
    _, err = attached.communicate()
    assert attached.returncode == 130
    assert f"tow cancel {job}" in err
    assert home.json("job", job)["state"] == "running"
    home.tow("cancel", f"{job}/a.0")
    assert home.json("wait", job, status=1)["state"] == "cancelled"


def read_all(terminal: int) -> str:
    """What was written to a terminal until everybody has closed it."""
    found = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # EIO: the other side is closed
            return found.decode()
        if not part:
            return found.decode()
        found += part


def on_terminal(home: Home, *arguments: str) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    command = home.start(*arguments, stdin=theirs, stdout=theirs, stderr=theirs, text=None)
    os.close(theirs)
    try:
        text = read_all(ours)
    finally:
        os.close(ours)
    return command.wait(), text


def test_one_interrupt_ends_a_question(home: Home) -> None:
    home.ready()
    ours, theirs = pty.openpty()
    command = subprocess.Popen(
        [*home.program, "secret", "set", "x"],
        env=home.env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,  # without a terminal of its own it asks at its stdin
    )
    os.close(theirs)
    try:
        asked = b""
        while b"Value of x" not in asked:
            asked += os.read(ours, 1024)
        command.send_signal(signal.SIGINT)
        assert command.wait(timeout=30) == 130
    finally:
        os.close(ours)
        command.kill()


def test_live_display_on_a_terminal(home: Home, script: Maker) -> None:
    file = home.job_file(
        {"a": script("sleep 0.3; test $TOW_INDEX != 2", array=4), "b": script("true", needs=["a"])}
    )
    status, text = on_terminal(home, "run", file)
    assert status == 1
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert "4/4" in plain
    assert "a.2 failed: exited with code 1" in plain
    assert "skipped" in plain
    assert "3 succeeded, 1 failed, 1 skipped" in plain


def test_logs_on_a_terminal_cannot_write_control_sequences(home: Home, script: Maker) -> None:
    job = home.submit({"a": script(r"printf '\033[2Jwiped\007\n'")})
    home.tow("wait", job)
    assert on_terminal(home, "logs", job) == (0, "wiped\\x07\r\n")
    assert on_terminal(home, "logs", job, "--raw") == (0, "\x1b[2Jwiped\x07\r\n")
    assert home.tow("logs", job).stdout == "\x1b[2Jwiped\x07\n"


def test_reader_that_goes_away_is_no_error(home: Home, script: Maker) -> None:
    job = home.submit({"a": script("seq 200000")})
    home.tow("wait", job)
    command = f'"$TOW" logs {job} | head -n 1'
    tow = home.tow("version").args[0]
    done = subprocess.run(
        ["sh", "-c", command], env={**home.env, "TOW": tow}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
    assert done.stderr == ""
