"""Images from a registry at the terminal: a job that runs one, logins, pins, and room."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.containers import busybox_image
from tests.e2e.home import Home, Maker, until
from tests.engines import engine
from tests.registry import PASSWORD, USER, Registry, StallingRegistry, closed_registry, registry

__all__ = ["busybox_image", "closed_registry", "registry"]

pytestmark = [
    pytest.mark.containers,
    pytest.mark.own_home,
    pytest.mark.one_machine(
        "its registry and engine are on this machine's loopback, which nodes in namespaces do not reach"
    ),
]


def marked(image: str, mark: str, tmp_path: Path) -> str:
    """The image with one file more, /mark; returns its name."""
    path, _, tag = image.removeprefix("oci:").rpartition(":")
    copy = tmp_path / f"layout-{mark}"
    (tmp_path / f"mark-{mark}").write_text(mark)
    subprocess.run(["cp", "-a", path, copy], check=True)
    argv = ["umoci", "insert", "--image", f"{copy}:{tag}", tmp_path / f"mark-{mark}", "/mark"]
    subprocess.run(argv, check=True, capture_output=True)
    return f"oci:{copy}:{tag}"


def test_a_job_runs_an_image_of_a_registry(home: Home, registry: Registry, busybox_image: str) -> None:
    name = registry.push(busybox_image, "busybox:1.36")
    job = home.submit({"hello": Maker(name)("echo hello $TOW_TASK")})
    home.tow("wait", job)
    assert home.tow("logs", f"{job}/hello").stdout == "hello hello\n"
    (listed,) = home.json("image", "ls")["images"]
    assert listed["names"] == [name]
    view = home.json("tasks", f"{job}/hello.0")
    assert view["attempts"][0]["image_digest"] == listed["digest"]


def test_all_elements_run_the_image_that_the_first_one_ran(
    home: Home, registry: Registry, busybox_image: str, tmp_path: Path
) -> None:
    name = registry.push(marked(busybox_image, "one", tmp_path), "moving:1")
    go = tmp_path / "go"
    # The second element waits for the first one's end (one at a time), and the tag moves in between.
    script = "cat /mark; while [ ! -e /go/go ] && [ $TOW_INDEX = 0 ]; do sleep 0.05; done"
    go.mkdir()
    task = Maker(name)(script, array=2, limit={"key": "one", "max": 1})
    task["mounts"] = [{"source": str(go), "target": "/go", "readonly": True}]
    job = home.submit({"t": task})
    until(lambda: home.tow("logs", f"{job}/t.0").stdout == "one", "the first element to run")
    registry.push(marked(busybox_image, "two", tmp_path), "moving:1")
    home.tow("image", "pull", name)
    for pid in home.processes()["agent"]:
        os.kill(pid, signal.SIGKILL)
    (go / "go").touch()
    home.tow("wait", job)
    assert home.tow("logs", f"{job}/t.1").stdout == "one"
    again = home.submit({"t": Maker(name)("cat /mark")})
    home.tow("wait", again)
    assert home.tow("logs", f"{again}/t").stdout == "two"


def test_a_login_lets_jobs_have_the_images_of_a_closed_registry(
    home: Home, closed_registry: Registry, busybox_image: str
) -> None:
    name = closed_registry.push(busybox_image, "private:1")
    job = home.submit({"t": Maker(name)("echo in")})
    home.tow("wait", job, status=1)
    element = home.json("tasks", f"{job}/t.0")
    assert element["reason"] == "image_auth"
    assert "tow registry login" in element["message"]

    home.tow("registry", "login", closed_registry.host, "-u", USER, input=PASSWORD + "\n")
    assert home.json("registry", "ls")["registries"][0]["user"] == USER
    job = home.submit({"t": Maker(name)("echo in")})
    home.tow("wait", job)
    assert home.tow("logs", f"{job}/t").stdout == "in\n"
    for pid in home.processes()["server"]:
        os.kill(pid, signal.SIGTERM)
    until(lambda: not home.processes().get("server"), "the server to end")
    for path in home.path.rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), path

    home.tow("image", "gc", "--all")
    job = home.submit({"t": Maker(name)("echo in")})  # also by the next server, with the key in the home
    home.tow("wait", job)
    home.tow("registry", "logout", closed_registry.host)
    home.tow("image", "gc", "--all")
    job = home.submit({"t": Maker(name)("echo in")})
    home.tow("wait", job, status=1)
    assert home.tow("registry", "logout", closed_registry.host, status=2).stderr.startswith(
        "error: There is no"
    )


def test_images_in_use_stay_and_others_go(home: Home, registry: Registry, busybox_image: str) -> None:
    name = registry.push(busybox_image, "kept:1")
    pulled = home.tow("image", "pull", name)
    assert pulled.stdout.startswith(f"{name} sha256:")
    job = home.submit({"t": Maker(name)("sleep 600")})
    until(lambda: home.json("image", "ls")["images"][0]["attempts"] == 1, "the image to be in use")
    assert home.json("image", "gc", "--all")["removed"] == []
    assert "in use by 1 attempts" in home.tow("image", "rm", name, status=2).stderr
    home.tow("cancel", job, "--kill")
    home.tow("wait", job, status=1)
    until(lambda: home.json("image", "ls")["images"][0]["attempts"] == 0, "the image to be free")
    assert home.json("image", "gc", "--all", "--dry-run")["removed"] == [name]
    assert home.json("image", "rm", name)["removed"] == [name]
    assert home.json("image", "ls")["images"] == []


@pytest.mark.parametrize(
    ("image", "reason", "says"),
    [("nowhere:1", "image_not_found", "There is no image"), ("Wrong:1", None, "lower case")],
)
def test_what_cannot_be_pulled_is_said(
    home: Home, registry: Registry, image: str, reason: str | None, says: str
) -> None:
    name = f"{registry.host}/{image}"
    refused = home.tow("image", "pull", name, status=1 if reason else 2)
    assert says in refused.stderr
    if reason is None:
        return
    job = home.submit({"t": Maker(name)("true")})
    home.tow("wait", job, status=1)
    assert home.json("tasks", f"{job}/t.0")["reason"] == reason


def test_nothing_of_a_login_is_in_the_arguments(home: Home) -> None:
    """What anybody on the machine can see of the command."""
    home.tow("registry", "ls")
    argv = [str(Path(sys.executable).with_name("tow")), "registry", "login", "ghcr.io", "-u", "ada"]
    process = subprocess.Popen(argv, env=home.env, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = (
        Path(f"/proc/{process.pid}/cmdline").read_bytes() + Path(f"/proc/{process.pid}/environ").read_bytes()
    )
    _, said = process.communicate("hunter2hunter2\n")
    assert "Logged in to ghcr.io as ada" in said
    assert b"hunter2" not in seen
    assert "hunter2" not in json.dumps(home.json("registry", "ls")) + os.fsdecode(seen)


@contextlib.contextmanager
def pulling(home: Home, busybox_image: str, runtime: str) -> Iterator[tuple[str, re.Pattern[str]]]:
    """A job whose image comes no further than a part of it, and how that is told."""
    stalling = StallingRegistry.of_fresh_layer(busybox_image, 30_000_000, 12_000_000)
    name = f"{stalling.host}/slow:1"
    try:
        job = home.submit({task: Maker(name)("true", runtime=runtime) for task in "tu"})
        told = re.compile(rf"pulling {name}: [0-9.]+ of 30 MB, \d+ s")
        why = until(lambda: told.search(home.json("why", f"{job}/t")["summary"]), "the pull to be told of")
        assert why.string.startswith("node ")
        yield job, told
        home.tow("cancel", job, "--kill")
        home.tow("wait", job, status=1)
        assert home.json("job", job)["pulls"] == []
    finally:
        stalling.close()


def test_how_far_a_pull_is_can_be_seen(home: Home, busybox_image: str) -> None:
    with pulling(home, busybox_image, "oci") as (job, told):
        (pull,) = home.json("job", job)["pulls"]
        assert (pull["tasks"], pull["total_bytes"]) == (["t", "u"], 30_000_000)
        for command in (("why", job), ("jobs",)):
            assert told.search(home.tow(*command).stdout), command
        watching = home.start("attach", job)
        assert watching.stdout is not None
        line = next(line for line in watching.stdout if "pulling" in line)
        assert "t, u: pulling" in line


def test_how_far_the_pull_of_an_engine_is_can_be_seen(home: Home, busybox_image: str) -> None:
    url = engine("docker").url
    assert url is not None
    home.env["DOCKER_HOST"] = url
    with pulling(home, busybox_image, "docker") as (job, told):
        assert told.search(home.tow("job", job).stdout)
