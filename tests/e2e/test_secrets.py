"""Secrets at the terminal: set, listed and removed, and never shown."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.e2e.home import Home, Maker, until

VALUE = "s3cret-Qx7-value"


def assert_nowhere(value: str, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            assert value.encode() not in path.read_bytes(), path


def said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


def test_a_secret_is_kept_and_never_shown(home: Home, tmp_path: Path) -> None:
    shown = said(home.tow("secret", "set", "my-token", input=VALUE + "\n"))
    assert shown == "Stored my-token, version 1. In a task: secrets: {TOKEN: my-token}\n"
    file = tmp_path / "key"
    file.write_bytes(b"\0binary\n")
    assert "version 2" in said(home.tow("secret", "set", "my-token", "--from-file", str(file)))
    home.tow("secret", "set", "other", input=VALUE)
    listed = home.json("secret", "ls")["secrets"]
    assert [(entry["name"], entry["version"]) for entry in listed] == [("my-token", 2), ("other", 1)]
    assert set(listed[0]) == {"name", "version", "updated_at"}
    assert VALUE not in said(home.tow("secret", "ls"))
    home.tow("secret", "rm", "other")
    assert "There is no secret other" in home.tow("secret", "rm", "other", status=2).stderr
    home.tow("server", "stop", status=None)
    assert_nowhere(VALUE, home.path)
    assert [entry["name"] for entry in home.json("secret", "ls")["secrets"]] == ["my-token"]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [("a/b", "x", "a secret's name is"), ("a", "", "is empty"), ("a", "x" * 65_537, "64 KiB")],
)
def test_what_cannot_be_kept_is_refused(home: Home, name: str, value: str, says: str) -> None:
    refused = home.tow("secret", "set", name, input=value, status=2)
    assert says in refused.stderr
    assert home.json("secret", "ls")["secrets"] == []


def test_a_value_is_no_argument(home: Home) -> None:
    assert "unexpected extra argument" in home.tow("secret", "set", "a", "value", status=2).stderr


# --- in tasks -----------------------------------------------------------------------------------------
def folders() -> list[Path]:
    """All folders of secrets on this machine."""
    return [path for place in ("/run", "/dev/shm") for path in Path(place).glob("towline-secrets.*/*/*")]


def folder_of(job: str) -> Path | None:
    """Of its only attempt, without that in which its output is masked; None while it has none."""
    return next((path for path in folders() if path.name.startswith(job) and not path.suffix), None)


def ends(home: Home, job: str, status: int = 0) -> None:
    home.tow("wait", job, status=status)
    until(lambda: not [path for path in folders() if path.name.startswith(job)], "its secrets to be removed")


USE = """
cd $TOW_SECRETS
for f in *; do wc -c < $f; done
[ "$(cat TOKEN)" = "s3cret-$((6+1))-value" ] && echo right
[ -w . ] && [ $(id -u) != 0 ] && echo writable
ls -ln | awk 'NR > 1 {print $1, $9}'
"""


def test_a_task_finds_its_secrets_in_files(home: Home, task: Maker) -> None:
    home.tow("secret", "set", "my-token", input="s3cret-7-value\n")
    home.tow("secret", "set", "key", input="two\nlines\n")
    job = home.submit({"t": task(USE, secrets={"TOKEN": "my-token", "tls.key": "key"}, array=3)})
    ends(home, job)
    for index in range(3):
        lines = home.tow("logs", f"{job}/t.{index}").stdout.split("\n")
        assert [line.strip() for line in lines] == [
            "14", "10", "right", "-r-------- TOKEN", "-r-------- tls.key", "",
        ]  # fmt: skip
    home.tow("server", "stop", status=None)
    assert_nowhere("s3cret-7-value", home.path)


@pytest.mark.containers
def test_in_a_container_they_are_read_only_and_its_users(home: Home, busybox_image: str) -> None:
    home.tow("secret", "set", "my-token", input=VALUE)
    script = """
    echo $TOW_SECRETS; wc -c < /run/secrets/TOKEN; id -u
    rm -f /run/secrets/TOKEN 2>/dev/null || echo kept; touch /run/secrets/x 2>/dev/null || echo read-only
    """
    job = home.submit({"t": Maker(busybox_image)(script, secrets={"TOKEN": "my-token"}, user="1000:1000")})
    ends(home, job)
    shown = home.tow("logs", f"{job}/t").stdout.split()
    assert shown == ["/run/secrets", str(len(VALUE)), "1000", "kept", "read-only"]


SHOW = """
v=$(cat $TOW_SECRETS/TOKEN)
printf 'is %s' "${v%-value}"; sleep 0.1; echo -value.
printf 'encoded %s\\n' "$(printf %s "u:$v" | base64)"
"""


def test_values_are_masked_in_output(home: Home, task: Maker) -> None:
    home.tow("secret", "set", "my-token", input=VALUE + "\n")
    job = home.submit({"t": task(SHOW, secrets={"TOKEN": "my-token"})})
    ends(home, job)
    assert home.tow("logs", f"{job}/t").stdout == "is ***.\nencoded dTp***\n"
    assert_nowhere(VALUE, home.path)


def test_a_value_too_short_to_be_masked_is_warned_of(home: Home) -> None:
    assert "warning: pin is shorter than 4 bytes" in home.tow("secret", "set", "pin", input="123\n").stderr
    assert "warning" not in home.tow("secret", "set", "pin", input="1234\n").stderr


def test_a_job_with_a_secret_that_is_not_stored_is_refused(home: Home, script: Maker) -> None:
    file = home.job_file({"t": script("true", secrets={"TOKEN": "gone"})})
    refused = home.tow("submit", file, status=2)
    assert "tasks.t.secrets.TOKEN: there is no secret 'gone'" in refused.stderr
    assert "tow secret set gone" in refused.stderr


def test_one_that_was_removed_since_fails_the_attempts_that_start_later(home: Home, script: Maker) -> None:
    home.tow("secret", "set", "my-token", input=VALUE)
    tasks = {
        "a": script("while [ ! -e $GO ]; do sleep 0.05; done", env={"GO": str(home.work / "go")}),
        "b": script("true", secrets={"TOKEN": "my-token"}, needs=["a"]),
    }
    job = home.submit(tasks)
    home.tow("secret", "rm", "my-token")
    (home.work / "go").touch()
    ends(home, job, status=1)
    element = home.json("tasks", f"{job}/b.0")
    assert element["reason"] == "start_failed"
    assert "tow secret set my-token" in element["message"]


@pytest.mark.parametrize("victims", [("agent",), ("supervisor",), ("agent", "supervisor", "keeper")])
def test_they_are_removed_after_kills_too(home: Home, task: Maker, victims: tuple[str, ...]) -> None:
    home.tow("secret", "set", "my-token", input=VALUE)
    job = home.submit({"t": task("sleep 600", secrets={"TOKEN": "my-token"})})
    until(lambda: folder_of(job), "its secrets to be there")
    until(lambda: home.json("tasks", f"{job}/t.0")["attempts"][-1]["state"] == "running", "it to run")
    for victim in victims:
        for pid in home.processes()[victim]:
            os.kill(pid, signal.SIGKILL)
    home.tow("cancel", job, "--kill")
    ends(home, job, status=1)
