"""The tests of one machine against a cluster: with TOWLINE_TEST_MODE=cluster the fixture ``home`` has a
server over TLS with two agents in network namespaces behind it, and commands reach it as from anywhere.

A test that cannot apply there is marked ``one_machine`` with the reason.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.fleet import Fleet
from tests.e2e.home import Home
from tests.e2e.lending import Lender, newest_job, settings, tidied

CLUSTERED = os.environ.get("TOWLINE_TEST_MODE", "") == "cluster"
NODES = ("n1", "n2")


class ClusterHome(Home):
    """Its cluster is there with the first command: that of all tests, or one of its own (``alone``, or where
    ``env`` has other settings by then). A server or agent that has died is started again before the next
    command."""

    def __init__(self, work: Path, shared: Callable[[], Fleet], *, alone: bool) -> None:
        super().__init__(Path("/nonexistent"), work)
        self._given = dict(self.env)
        self._shared = shared
        self._alone = alone
        self._fleet: Fleet | None = None
        self.own: Fleet | None = None
        self.before: dict[str, list[int]] = {}
        """The processes of the cluster of all tests, when this one came to it."""

    @property
    def fleet(self) -> Fleet:
        if self._fleet is None:
            told = settings(self._given, self.env)
            if told or self._alone:
                self.own = self._fleet = started(told, str(self.work))
            else:
                self._fleet = self._shared()
                self.before = processes(self._fleet)
                self.newest = newest_job(self._fleet.http)
            self.path = self._fleet.folder
            self.env |= access(self._fleet)
        return self._fleet

    def ready(self) -> None:
        fleet = self.fleet
        assert fleet.server is not None
        if was_killed(fleet.server.pid):
            fleet.server.wait()
        if fleet.server.poll() is not None:
            fleet.serve()
        for machine in fleet.machines.values():
            assert machine.agent is not None
            if machine.agent.poll() is not None:
                machine.start()

    def tow(
        self, *arguments: str, status: int | None = 0, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        self.ready()
        done = super().tow(*arguments, status=None, **options)
        assert status is None or done.returncode == status, (arguments, done, self.log())
        return done

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        self.ready()
        return super().start(*arguments, **options)

    def is_untouched(self) -> bool:
        """The server runs anyway: nothing was submitted to it."""
        return self.jobs() == []

    @property
    def database(self) -> Path:
        return self.fleet.home / "state.db"

    def log(self) -> str:
        return self.fleet.situation()

    def situation(self, *jobs: str) -> str:
        return self.fleet.situation()

    def payloads(self) -> list[int]:
        return [pid for node in self._nodes() for pid in node.payloads()]

    def contained(self) -> list[int]:
        return [pid for node in self._nodes() for pid in node.contained()]

    def _nodes(self) -> list[Home]:
        return [Home(machine.home, self.work) for machine in self.fleet.machines.values()]


def started(environ: dict[str, str], mounts: str) -> Fleet:
    """A server with two agents."""
    made = Fleet(environ, mounts, reachable=True)
    try:
        made.serve()
        made.join(*NODES)
    except BaseException:
        made.close()
        raise
    return made


def access(fleet: Fleet) -> dict[str, str]:
    """What a command has to know of it."""
    authority, token = fleet.folder / "authority.pem", fleet.folder / "token"
    if not token.exists():
        authority.write_text(fleet.http.get("/v1/authority").text)
        made = fleet.http.post("/v1/tokens", json={"name": "test", "role": "admin"}).raise_for_status()
        token.write_text(made.json()["token"])
    return {
        "TOWLINE_SERVER": f"https://{fleet.address}",
        "TOWLINE_TOKEN": token.read_text(),
        "TOWLINE_CA": str(authority),
        "TOWLINE_HOME": str(fleet.folder / "u"),
    }


def processes(fleet: Fleet) -> dict[str, list[int]]:
    """Of each node, and the server's."""
    server = [] if fleet.server is None else [fleet.server.pid]
    nodes = fleet.machines.values()
    return {"server": server} | {node.name: node.pids("agent", "keeper", "supervisor") for node in nodes}


def was_killed(pid: int) -> bool:
    """Whether SIGKILL is on its way to a process, which lives for a moment more."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        pending = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd:", "ShdPnd:"))]
        return any(mask >> (signal.SIGKILL - 1) & 1 for mask in pending)
    return False


class FleetLender(Lender):
    """Lends the cluster of all tests."""

    def __init__(self, mounts: Path) -> None:
        super().__init__()
        self._mounts = str(mounts)
        self._fleet: Fleet | None = None

    def lend(self, work: Path, *, alone: bool = False) -> ClusterHome:
        return ClusterHome(work, self._lent, alone=alone)

    def _lent(self) -> Fleet:
        if self._fleet is None:
            self._fleet = started({}, self._mounts)
        return self._fleet

    def take_back(self, home: Home, *, failed: bool) -> None:
        assert isinstance(home, ClusterHome)
        home.end_started()
        if home.own is not None:
            home.own.close()
        if home.before and self._fleet is not None:
            as_before = processes(self._fleet) == home.before
            if failed or not as_before or not tidied(self._fleet.home):
                self.close()

    def close(self) -> None:
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            fleet.close()


def chosen(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Only what is meant for this mode: tests that make clusters themselves are the same in both."""
    if not CLUSTERED:
        return
    kept: list[pytest.Item] = []
    for item in items:
        mark = item.get_closest_marker("one_machine")
        if mark is not None:
            item.add_marker(pytest.mark.skip(reason=mark.args[0]))
        if _has_our_home(item):
            kept.append(item)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _has_our_home(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        return False
    found = item._fixtureinfo.name2fixturedefs.get("home", ())
    return bool(found) and found[-1].baseid == "tests/e2e"
