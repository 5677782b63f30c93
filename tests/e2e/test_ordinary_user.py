"""``tow`` as a user who is not root: containers in a namespace of that user, and what is said of the rest."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.containers import build_busybox_image
from tests.e2e.home import Home, Maker, until
from tests.ordinary_user import OrdinaryUser, Unavailable, open_folder, ordinary_user

pytestmark = pytest.mark.containers
NEEDED = ("crun", "runc", "skopeo", "umoci", "sh", "setpriv", "nsenter", "newuidmap", "newgidmap")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def user(folder: Path) -> Iterator[OrdinaryUser]:
    try:
        with ordinary_user(folder) as made:
            yield made
    except Unavailable as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def task(folder: Path) -> Maker:
    image = build_busybox_image(folder / "busybox")
    for path in (folder / "busybox").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return Maker(image)


@pytest.fixture
def home(user: OrdinaryUser) -> Iterator[Home]:
    work = user.home / "work"
    work.mkdir()
    user.owns(work)
    made = Home(user.home / "tow", work)
    made.program, made.identity = user.program, user.identity
    made.env = {**user.env, "TOWLINE_HOME": str(made.path)}
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(work)
        shutil.rmtree(made.path, ignore_errors=True)


def programs(user: OrdinaryUser, but: str) -> str:
    """A folder for PATH with all that containers need but one."""
    path = user.home / f"without-{but}"
    path.mkdir()
    for name in set(NEEDED) - {but}:
        (path / name).symlink_to(str(shutil.which(name)))
    return str(path)


@pytest.mark.parametrize("engine", ["crun", "runc"])
def test_a_container_is_the_user_and_has_no_rights(
    home: Home, user: OrdinaryUser, task: Maker, engine: str
) -> None:
    home.env["TOWLINE_OCI_RUNTIME"] = engine
    (home.work / "secret").write_text("of the user\n")
    (home.work / "secret").chmod(0o600)
    user.owns(home.work / "secret")
    script = """
        cat /work/secret; echo new > /work/new; echo out > $TOW_OUT/file; id -u
        grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status
        mkdir -p /left/over; chmod 000 /left
    """
    tasks = {
        "a": task(script, user="1000", mounts=[{"source": ".", "target": "/work"}]),
        "b": task("cat /in/a/file; id -u", needs=["a"], inputs={"a": "/in/a"}, network="host"),
    }
    done = home.tow("run", home.job_file(tasks))
    assert "limits no memory and no cpu" in done.stderr
    said = home.tow("logs", "job/a").stdout
    for line in ("of the user", "1000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in said.splitlines()
    assert home.tow("logs", "job/b").stdout == "out\n0\n"
    assert (home.work / "new").stat().st_uid == user.uid
    until(lambda: not list((home.path / "node" / "attempts").iterdir()), "nothing is left of the attempts")


def test_processes_are_limited_and_the_rest_is_said(home: Home, task: Maker) -> None:
    fork = "i=0; while [ $i -lt 40 ]; do sleep 10 & i=$((i+1)); done"
    view = home.run({"a": task(fork, resources={"pids": 20})}, status=1)
    assert "can't fork" in home.tow("logs", view["id"]).stdout
    home.submit({"a": task("true", require=["memory"])}, name="requiring")
    assert "memory" in home.tow("why", "requiring").stdout
    said = home.tow("doctor", status=None).stdout
    assert "protects by network, pids, rootfs, seccomp, userns" in said
    assert "has no memory: only root may make cgroups here" in said
    plain = home.tow("run", "--runtime", "process", "--", "id", "-u")
    assert plain.stdout.strip() == str(home.identity["user"])


def test_what_is_missing_is_said_and_nothing_is_begun(home: Home, user: OrdinaryUser, task: Maker) -> None:
    home.env["PATH"] = programs(user, but="newuidmap")
    refused = home.tow("run", str(task.image), "--", "true", status=2)
    assert "this machine cannot run oci" in refused.stderr
    assert "newuidmap, which gives an ordinary user's containers their ids, is missing" in refused.stderr
    assert "apt-get install uidmap" in refused.stderr
    assert home.json("jobs")["jobs"] == []


def all_are_back(home: Home, before: dict[str, list[int]]) -> bool:
    now = home.processes()
    return set(now) == set(before) and now != before


def test_kills_of_all_of_ours_lose_nothing(home: Home, task: Maker) -> None:
    """Supervisor and keeper one after the other, everything else with the first."""
    script = "echo begun; while ! test -e /work/go; do sleep 0.05; done; echo done; exit 5"
    job = home.submit({"a": task(script, mounts=[{"source": ".", "target": "/work"}])})
    until(lambda: "begun" in home.tow("logs", job).stdout, "it runs")
    for roles in (("server", "agent", "supervisor"), ("keeper",)):
        before = home.processes()
        for role in roles:
            os.kill(before[role][0], signal.SIGKILL)
        assert home.json("job", job)["state"] == "running"
        until(lambda old=before: all_are_back(home, old), "what was killed is back")
    (home.work / "go").touch()
    view = home.json("wait", job, status=1)
    (element,) = view["tasks"][0]["elements"]
    assert [(attempt["number"], attempt["exit_code"]) for attempt in element["attempts"]] == [(1, 5)]
    assert home.tow("logs", job).stdout == "begun\ndone\n"
    until(lambda: not list((home.path / "node" / "attempts").iterdir()), "nothing is left of it")
