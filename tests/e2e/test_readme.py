"""The commands of the README's "From one machine to many", run as they stand there, on two machines."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import guard
from tests.e2e.home import LONG_S, TOW, until

from towline.cli.dev.network import NETWORK, Network, entered

README = Path(__file__).parents[2] / "README.md"
SECTION = "## From one machine to many"
PLACEHOLDER = re.compile(r"'tow://HOST[^']*'")

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root"),
]


def blocks() -> list[list[str]]:
    """The commands of each of the section's blocks, without their comments."""
    section = README.read_text().partition(SECTION)[2].partition("\n## ")[0]
    found = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return [[line.partition("  #")[0].strip() for line in block.splitlines()] for block in found]


class Machine:
    """A network namespace, and a user's home in it."""

    def __init__(self, space: str, home: Path, **environ: str) -> None:
        self.space = space
        self.log = home / "log"
        home.mkdir(mode=0o700)
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("TOWLINE_", "XDG_"))
        }
        path = f"{Path(TOW[0]).parent}:{kept['PATH']}"
        self._environ = {**kept, "PATH": path, "HOME": str(home), **environ}
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, command: str) -> None:
        argv = [*entered(self.space), *shlex.split(command.removesuffix("&"))]
        with self.log.open("ab") as log:
            self._started.append(
                subprocess.Popen(argv, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )

    def run(self, command: str, text: str = "") -> str:
        done = subprocess.run(
            [*entered(self.space), *shlex.split(command)],
            env=self._environ, input=text, capture_output=True, text=True, timeout=LONG_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (command, done, self.log.read_text() if self.log.exists() else "")
        return done.stdout

    def end(self) -> None:
        for process in self._started:
            process.terminate()
            process.wait(LONG_S)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="tow-"))
    guard.watch(made)
    try:
        yield made
    finally:
        guard.end(made)
        shutil.rmtree(made, ignore_errors=True)


def test_two_machines_become_a_cluster_as_the_readme_says(folder: Path) -> None:
    network = Network(f"tow{os.getpid()}", folder / NETWORK, ipaddress.ip_network("10.99.0.0/16"), "s")
    network.open()
    assert network.hub is not None
    # There is no name service between namespaces: the server is told its address.
    first = Machine(network.hub, folder / "first", TOWLINE_ADDRESS=network.address)
    second_space = network.add()
    second, third = Machine(second_space, folder / "second"), Machine(second_space, folder / "third")
    try:
        _follow(first, second, third, network.address)
    finally:
        second.end()
        first.end()


def _follow(first: Machine, second: Machine, third: Machine, host: str) -> None:
    on_first, on_second, from_anywhere = blocks()

    serve, join, token = on_first
    first.start(serve)
    until(lambda: "Starting on" in first.log.read_text(), "the server to start")
    printed = first.run(join)
    ada = first.run(token)
    found = re.search(r"'tow://[^']*'", printed)
    assert found is not None, printed
    (enrol,) = on_second
    assert PLACEHOLDER.search(enrol), enrol
    second.start(PLACEHOLDER.sub(found[0], enrol))
    until(lambda: "ready" in first.run("tow nodes"), "the node to be ready")

    add, nodes, run, logs = from_anywhere
    authority = found[0].rpartition("ca=")[2].rstrip("'")
    third.run(add.replace("HOST", host).replace("sha256:…", authority), text=_token(ada))
    assert "ready" in third.run(nodes)
    third.run(run)
    assert third.run(logs).strip() == os.uname().nodename


def _token(printed: str) -> str:
    found = re.search(r"tow_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", printed)
    assert found is not None, printed
    return found[0]
