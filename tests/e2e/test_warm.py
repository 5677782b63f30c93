"""A command of the process that has loaded the modules is as one that was started afresh."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.e2e import warm
from tests.e2e.home import until

from towline.cli.dev.remains import all_pids

Run = Callable[[list[str], str | None], subprocess.CompletedProcess[str]]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "TOWLINE_HOME": str(tmp_path / "home"), "TOWLINE_CONTEXT": "nowhere"}


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["version", "--json"], None),
        (["schema"], None),
        (["--help"], None),
        (["queue"], None),
        (["nonsense"], None),
        (["jobs", "--nonsense"], None),
        (["jobs"], None),
        (["init", "here.yaml"], None),
        (["context", "add", "lab", "--server", "https://x:1", "--ca", "/none"], "tow_x\n"),
    ],
)
def test_it_says_and_does_the_same(
    env: dict[str, str], tmp_path: Path, arguments: list[str], given: str | None
) -> None:
    fresh, forked = tmp_path / "fresh", tmp_path / "forked"
    for folder in (fresh, forked):
        folder.mkdir()
    options: dict[str, Any] = {"env": env, "timeout": 60, "text": True}
    wanted = subprocess.run(
        [warm.TOW, *arguments], cwd=fresh, capture_output=True, check=False, input=given, **options
    )
    found = warm.run(arguments, cwd=forked, input=given, **options)
    assert (found.returncode, found.stdout, found.stderr) == (
        wanted.returncode, wanted.stdout, wanted.stderr,
    )  # fmt: skip
    assert [path.name for path in forked.iterdir()] == [path.name for path in fresh.iterdir()]


def test_one_that_hangs_is_ended(env: dict[str, str], tmp_path: Path) -> None:
    reader, writer = os.pipe()  # whose other end stays open: a question that nobody answers
    stdin = os.dup(0)
    os.dup2(reader, 0)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            warm.run(["secret", "set", "x"], env=_alone(env), cwd=tmp_path, timeout=0.5)
    finally:
        os.dup2(stdin, 0)
        for descriptor in (reader, writer, stdin):
            os.close(descriptor)
    assert warm.run(["version"], env=env, cwd=tmp_path, timeout=60).returncode == 0


def _alone(env: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name != "TOWLINE_CONTEXT"}


def test_it_hears_an_interrupt(env: dict[str, str], tmp_path: Path) -> None:
    """As a command in the group of a terminal that gets Ctrl-C."""
    reader, writer = os.pipe()
    before, over = {*all_pids()}, threading.Event()

    def interrupt() -> None:
        (pid,) = until(lambda: _forked() - before, "the command to be there")
        while not over.wait(0.2):  # again, where it was just born
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)

    warm.run(["version"], env=env, cwd=tmp_path, timeout=60)  # that forks is there
    before = {*all_pids()}
    thread = threading.Thread(target=interrupt)
    stdin = os.dup(0)
    os.dup2(reader, 0)
    try:
        thread.start()
        done = warm.run(["secret", "set", "x"], env=_alone(env), cwd=tmp_path, timeout=60)
    finally:
        over.set()
        thread.join()
        os.dup2(stdin, 0)
        for descriptor in (reader, writer, stdin):
            os.close(descriptor)
    assert done.returncode in (130, -signal.SIGINT)


def _forked() -> set[int]:
    """Processes whose command line is that of the one that forks."""
    found: set[int] = set()
    for pid in all_pids():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if warm.__file__.encode() in words:
            found.add(pid)
    return found


def test_what_a_program_reads_at_its_start_is_no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOWLINE_TEST_COLD", raising=False)
    given = {"text": True, "input": "x"}
    assert warm.is_fit({**os.environ, "TOWLINE_HOME": "/x"}, given)
    assert not warm.is_fit({**os.environ, "PYTHONPATH": "/x"}, given)
    assert not warm.is_fit({**os.environ, "LC_ALL": "C"}, given)
    assert not warm.is_fit(dict(os.environ), {**given, "user": 1})
