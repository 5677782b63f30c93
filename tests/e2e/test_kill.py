"""``kill -9`` of our own processes at random: nothing is lost, nothing runs twice at once, nothing stays."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.e2e.home import Home, Maker, until

from towline.cli.doctor import processes_of
from towline.logs.reader import read
from towline.runtime.cgroups import find_cgroups
from towline.runtime.oci.engine import ENGINES
from towline.runtime.oci.overlay import ROOTS

pytestmark = [
    pytest.mark.own_home,
    pytest.mark.one_machine(
        "kills this machine's processes by role; test_recovery.py and test_takeover.py do so in clusters"
    ),
]
ROUNDS = int(os.environ.get("TOWLINE_KILLS", "30"))
NO_SERVER = 3
ELEMENTS = 300
"""Of one array; of containers, which take longer to start, a third."""
PATIENCE_S = 15 * ROUNDS
PAUSE_S = 0.2
"""Between commands: without it they would take a CPU for themselves, and what is tested the other."""

# An element holds its own folder while it runs: a second copy of it would not get it, and tells.
HELD = """
cd {folder}
mkdir held.$TOW_INDEX || {{ echo $TOW_ATTEMPT >> twice.$TOW_INDEX; exit 1; }}
sleep 0.3
echo $TOW_ATTEMPT >> ran.$TOW_INDEX
echo said
rmdir held.$TOW_INDEX
"""


class Killer:
    """Kills one or several of the home's processes at random moments, in a thread of its own."""

    def __init__(self, home: Home, seed: int) -> None:
        self.kills = 0
        self.error: BaseException | None = None
        self._home = home
        self._random = random.Random(seed)
        self._end = threading.Event()

    def run(self) -> None:
        while self.kills < ROUNDS and not self._end.wait(self._random.uniform(0.1, 1.5)):
            found = processes_of(self._home.path)
            if not found:
                continue
            for _, pid in self._random.sample(found, k=min(len(found), self._random.choice((1, 1, 1, 2, 4)))):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.kills += 1

    @contextmanager
    def at_work(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()


class Stream:
    """Jobs of one array each, a new one whenever fewer than two are unfinished."""

    def __init__(self, home: Home, task: Maker) -> None:
        self.home = home
        self.task = task
        self.elements = ELEMENTS if task.image is None else ELEMENTS // 3
        self.folders: dict[str, Path] = {}
        self.unfinished: list[str] = []

    def tend(self) -> None:
        """By new commands each time, since it is such commands that start what is missing."""
        self.unfinished = [
            job
            for job in self.unfinished
            if json.loads(self._tow("job", job, "--json"))["state"] == "running"
        ]
        if len(self.unfinished) < 2:
            self._submit()

    def _submit(self) -> None:
        folder = self.home.work / f"held{len(self.folders)}"
        folder.mkdir()
        work = self.task(
            HELD.format(folder=folder if self.task.image is None else "/held"),
            array=self.elements,
            retries={"lost": 100},
            resources={"cpu": 0.2},
        )
        if self.task.image is not None:
            work["mounts"] = [{"source": str(folder), "target": "/held"}]
        file = self.home.job_file({"a": work}, name=folder.name)
        job = self._tow("submit", file, "--key", folder.name).strip()
        self.folders[job] = folder
        self.unfinished.append(job)

    def _tow(self, *arguments: str) -> str:
        """A command may give up where server after server is killed before it has answered (status 3)."""
        while (done := self.home.tow(*arguments, status=None)).returncode == NO_SERVER:
            continue
        assert done.returncode == 0, (arguments, done, self.home.log())
        return str(done.stdout)


@pytest.mark.timeout(3 * PATIENCE_S)
def test_random_kills_lose_nothing_and_leave_nothing(home: Home, task: Maker) -> None:
    seed = int(os.environ.get("TOWLINE_SEED") or random.SystemRandom().randrange(2**32))
    stream = Stream(home, task)
    stream.tend()
    killer = Killer(home, seed)
    until_s = time.monotonic() + PATIENCE_S
    with killer.at_work():
        while killer.kills < ROUNDS:
            stream.tend()
            time.sleep(PAUSE_S)
            assert time.monotonic() < until_s, (seed, killer.kills, home.situation(*stream.unfinished))
    for job, folder in stream.folders.items():
        check(home, job, folder, task, f"seed {seed}")
    assert {job["id"] for job in home.json("jobs")["jobs"]} == set(stream.folders), seed
    until(lambda: not home.payloads(), "nothing is left running", 30)
    until(lambda: not leftovers(home, stream.folders), f"nothing is left of attempts (seed {seed})", 30)


def leftovers(home: Home, jobs: Iterable[str]) -> list[Path]:
    """Folders of attempts, notes of the engines, roots, cgroups."""
    node = home.path / "node"
    found = [path for name in ("attempts", *ENGINES) for path in (node / name).glob("*")]
    found += [path for job in jobs for path in Path(ROOTS).glob(f"{job}-*")]
    with contextlib.suppress(OSError):  # this machine has none: no containers either
        for mount in set(find_cgroups().mounts.values()):
            found += [path for job in jobs for path in Path(mount, "towline").glob(f"{job}-*")]
    return found


def check(home: Home, job: str, folder: Path, task: Maker, message: str) -> None:
    """Every element of the job succeeds, and has run to its end once."""
    view = home.json("wait", job, status=None)
    elements = view["tasks"][0]["elements"]
    twice = sorted(path.name for path in folder.glob("twice.*"))
    odd = [element for element in elements if element["state"] != "succeeded"]
    message = f"{message}, {view['counts']}, twice: {twice}, {odd}\n{home.log()}"
    assert view["state"] == "succeeded", message
    assert not twice, message
    assert view["counts"]["succeeded"] == len(elements), message
    assert len(list(folder.glob("ran.*"))) == len(elements), message
    for element in elements:
        numbers = [attempt["number"] for attempt in element["attempts"]]
        assert numbers == sorted(set(numbers)), (message, element)
        ends = [attempt for attempt in element["attempts"] if attempt["state"] == "finished"]
        assert [end["exit_code"] for end in ends] == [0], (message, element)
        assert task.image is None or all(attempt["image_digest"] for attempt in ends), (message, element)
        said, *_ = read(str(home.path / "node" / "output" / ends[0]["id"]), "stdout", 0, 1000)
        # Only where keeper and supervisor die together something may be missing, and is told of.
        assert said == b"said\n" or ends[0]["message"], (message, element, said)


@pytest.mark.parametrize(
    "roles", [("server",), ("agent",), ("keeper",), ("supervisor",), ("server", "agent")]
)
def test_running_elements_are_adopted_with_their_exit_and_output(
    home: Home, script: Maker, roles: tuple[str, ...]
) -> None:
    job = home.submit({"a": script("echo begun; while ! test -e go; do sleep 0.05; done; echo done; exit 5")})
    follower = home.start("logs", job, "-f")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "begun\n"
    payload = home.payload_of(b"while")
    before = {role: home.processes()[role][0] for role in roles}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    assert home.json("job", job)["state"] == "running"
    until(lambda: all(role_is_back(home, role, before) for role in roles), "what was killed is back")
    (Path(f"/proc/{payload}/cwd") / "go").touch()
    view = home.json("wait", job, status=1)
    (element,) = view["tasks"][0]["elements"]
    assert [(a["number"], a["exit_code"]) for a in element["attempts"]] == [(1, 5)]
    assert follower.communicate()[0] == "done\n"
    assert home.tow("logs", job).stdout == "begun\ndone\n"


def role_is_back(home: Home, role: str, before: dict[str, int]) -> bool:
    now = home.processes()
    # A keeper that died is replaced by its supervisor, in that one's process.
    return any(pid != before[role] for pid in now.get(role, []))


def test_keeper_and_supervisor_killed_together(home: Home, script: Maker) -> None:
    """What ran is known from the kernel's record, or lost and run again; it ends either way."""
    job = home.submit({"a": script("sleep 0.5; echo $TOW_ATTEMPT")})
    until(lambda: home.payloads(), "it runs")
    for role in ("keeper", "supervisor"):
        for pid in home.processes().get(role, []):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    view = home.json("wait", job)
    assert view["state"] == "succeeded"


# Only an attempt's: the node tries crun too, to see what it can give.
KILLED_ONCE = """#!/bin/sh
case " $* " in *" run "*/attempts/*) mkdir {folder}/killed && {{ {crun} "$@"; kill -9 $$; }} ;; esac
exec {crun} "$@"
"""


@pytest.mark.containers
@pytest.mark.parametrize(("lost", "states"), [(1, ["lost", "finished"]), (0, ["lost"])])
def test_a_container_whose_crun_was_killed_is_tried_again(
    home: Home, busybox_image: str, lost: int, states: list[str]
) -> None:
    """As often as ``retries.lost`` says, and by then nothing of the first try is left."""
    crun = home.work / "crun"
    crun.write_text(KILLED_ONCE.format(folder=home.work, crun=shutil.which("crun")))
    crun.chmod(0o755)
    home.env["PATH"] = f"{home.work}:{home.env['PATH']}"
    script = "[ $TOW_ATTEMPT = 2 ] || exec sleep 1000"
    work = Maker(busybox_image)(script, retries={"lost": lost})
    view = home.run({"a": work}, status=None)
    (element,) = view["tasks"][0]["elements"]
    assert [attempt["state"] for attempt in element["attempts"]] == states, (view, home.log())
    assert element["attempts"][0]["reason"] == "supervision_lost"
    assert "crun was killed by signal 9" in element["attempts"][0]["message"]
    assert view["state"] == ("succeeded" if lost else "failed")
    until(lambda: not leftovers(home, [view["id"]]), "nothing is left of the attempts")
