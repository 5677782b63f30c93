"""``tow dev``: a cluster on one machine that leaves nothing, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import guard
from tests.e2e.home import Home, Maker, until
from tests.ordinary_user import Unavailable, open_folder, ordinary_user

from towline.cli.doctor import processes_of

pytestmark = [pytest.mark.own_home, pytest.mark.one_machine("makes a cluster of its own")]


class Dev:
    """The command, what it has said, and ``user``, who works with its context."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.folder = home.path / "dev"
        self.said = home.work / "dev.log"
        home.env |= {"XDG_CONFIG_HOME": str(home.work / "config")}
        self.user = Home(home.path, home.work)
        self.user.program, self.user.identity = home.program, home.identity
        self.user.env = {**home.env, "TOWLINE_CONTEXT": "dev"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        before = self._lines("In another terminal")
        with self.said.open("a") as log:
            command = self.home.start("dev", *arguments, stdout=log, stderr=log)
        until(lambda: self._lines("In another terminal") > before or command.poll() is not None, "tow dev")
        assert command.poll() is None, self.said.read_text()
        return command

    def _lines(self, text: str) -> int:
        return self.said.read_text().count(text) if self.said.exists() else 0

    def end(self, command: subprocess.Popen[str], number: int = signal.SIGINT) -> int:
        os.kill(command.pid, number)
        return command.wait(120)

    def network(self) -> list[str]:
        file = self.folder / "network"
        return [line.split()[1] for line in file.read_text().splitlines()] if file.exists() else []

    def assert_gone(self, network: list[str]) -> None:
        assert not self.folder.exists()
        assert not processes_of(self.folder)
        assert self.home.json("context", "ls")["contexts"] == []
        shown = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
        assert not [name for name in network if name in shown or Path("/run/netns", name).exists()]


@pytest.fixture
def dev(home: Home) -> Iterator[Dev]:
    made = Dev(home)
    guard.watch(made.folder)
    try:
        yield made
    finally:
        for command in made.home._started:
            if command.poll() is None:
                made.end(command)
        guard.end(made.folder)


@pytest.mark.containers
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root")
def test_nodes_in_namespaces_leave_nothing_also_after_a_kill(
    dev: Dev, script: Maker, busybox_image: str
) -> None:
    command = dev.start("--nodes", "2")
    network = dev.network()
    assert len(network) == 5, "a bridge, and a namespace and a link of each node"
    where = "readlink /proc/self/ns/net"
    names = ("n1", "n2")
    done = dev.user.run({name: script(where, where={"node": [name]}) for name in names})
    spaces = {dev.user.tow("logs", f"{done['id']}/{name}").stdout for name in names}
    assert len({*spaces, f"{os.readlink('/proc/self/ns/net')}\n"}) == 3  # noqa: PTH115
    box = Maker(busybox_image)("sleep 600")
    job = dev.user.submit({"s": script("sleep 600", resources={"cpu": 0.1}), "box": box}, name="long")
    until(lambda: dev.user.json("job", job)["counts"]["active"] == 2, "both to run")
    assert "runs already" in dev.home.tow("dev", status=2).stderr

    # The server is killed, and is back with all it knew; then the command itself is killed.
    (server,) = (pid for role, pid in processes_of(dev.folder) if role == "server")
    os.kill(server, signal.SIGKILL)
    assert dev.user.json("job", job)["counts"]["active"] == 2
    assert dev.end(command, signal.SIGKILL) == -signal.SIGKILL
    homes = [Home(dev.folder / name, dev.folder) for name in names]
    left = [pid for each in homes for pid in (*each.payloads(), *each.contained())]
    assert len(left) >= 2

    command = dev.start("--nodes", "1")
    assert not [pid for pid in left if _is_of(pid, "sleep")]
    assert dev.user.json("jobs")["jobs"] == []
    assert [node["name"] for node in dev.user.json("nodes")["nodes"]] == ["n1"]
    network += dev.network()
    assert dev.end(command) == 0
    dev.assert_gone(network)
    assert "is started again" in dev.said.read_text()


def _is_of(pid: int, word: str) -> bool:
    try:
        return word in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def test_wrong_input_is_refused_and_an_early_end_leaves_nothing(dev: Dev) -> None:
    for count in ("0", "65", "-1", "two"):
        assert "--nodes" in dev.home.tow("dev", "--nodes", count, status=2).stderr
    assert "cannot be a context's name" in dev.home.tow("dev", "--context", "local", status=2).stderr
    kept = Path(dev.home.env["XDG_CONFIG_HOME"]) / "towline" / "contexts.json"
    kept.parent.mkdir(parents=True)
    contexts = {"dev": {"url": "https://other:7443", "token": "t", "authority": "a"}}
    kept.write_text(json.dumps({"current": "dev", "contexts": contexts}))
    assert "There is a context dev already" in dev.home.tow("dev", status=2).stderr
    assert json.loads(kept.read_text())["contexts"] == contexts
    kept.unlink()

    command = dev.home.start("dev", "--nodes", "2", "--host-network")
    until(lambda: processes_of(dev.folder), "its first process")
    assert dev.end(command) == 130
    dev.assert_gone([])


@pytest.mark.containers
def test_an_ordinary_user_has_nodes_too(script: Maker) -> None:
    with open_folder() as folder:
        try:
            with ordinary_user(folder) as user:
                home = Home(user.home / "tow", user.home)
                home.program, home.identity, home.env = user.program, user.identity, dict(user.env)
                home.env["TOWLINE_HOME"] = str(home.path)
                made = Dev(home)
                guard.watch(made.folder)
                try:
                    command = made.start("--nodes", "2")
                    tasks = {name: script("echo here", where={"node": [name]}) for name in ("n1", "n2")}
                    assert made.user.run(tasks)["state"] == "succeeded"
                    assert made.network() == []
                    assert made.end(command, signal.SIGTERM) == 0
                    made.assert_gone([])
                finally:
                    guard.end(made.folder)
        except Unavailable as why:
            pytest.skip(str(why))
