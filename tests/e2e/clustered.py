"""The tests of one machine against a cluster: with TOWLINE_TEST_MODE=cluster the fixture ``home`` has a
server over TLS with two agents in network namespaces behind it, and commands reach it as from anywhere.

A test that cannot apply there is marked ``one_machine`` with the reason.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.fleet import Fleet
from tests.e2e.home import Home

CLUSTERED = os.environ.get("TOWLINE_TEST_MODE", "") == "cluster"
NODES = ("n1", "n2")


class ClusterHome(Home):
    """Its cluster starts with the first command, with the settings that are in ``env`` by then; a server or
    agent that has died is started again before the next one."""

    def __init__(self, work: Path) -> None:
        super().__init__(Path("/nonexistent"), work)
        self._fleet: Fleet | None = None

    @property
    def fleet(self) -> Fleet:
        if self._fleet is None:
            settings = {name: value for name, value in self.env.items() if self._is_setting(name)}
            made = self._fleet = Fleet(settings, str(self.work), reachable=True)
            self.path = made.folder
            made.serve()
            made.join(*NODES)
            authority = made.folder / "authority.pem"
            authority.write_text(made.http.get("/v1/authority").text)
            answer = made.http.post("/v1/tokens", json={"name": "test", "role": "admin"}).json()
            self.env |= {
                "TOWLINE_SERVER": f"https://{made.address}",
                "TOWLINE_TOKEN": answer["token"],
                "TOWLINE_CA": str(authority),
                "TOWLINE_HOME": str(made.folder / "u"),
            }
        return self._fleet

    def _is_setting(self, name: str) -> bool:
        return os.environ.get(name) != self.env[name] and name != "TOWLINE_HOME"

    def _ready(self) -> None:
        fleet = self.fleet
        assert fleet.server is not None
        if fleet.server.poll() is not None:
            fleet.serve()
        for machine in fleet.machines.values():
            assert machine.agent is not None
            if machine.agent.poll() is not None:
                machine.start()

    def tow(
        self, *arguments: str, status: int | None = 0, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        self._ready()
        done = super().tow(*arguments, status=None, **options)
        assert status is None or done.returncode == status, (arguments, done, self.log())
        return done

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        self._ready()
        return super().start(*arguments, **options)

    def is_untouched(self) -> bool:
        """The server runs anyway: nothing was submitted to it."""
        return self.json("jobs")["jobs"] == []

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

    def close(self) -> None:
        self.end_started()
        if self._fleet is not None:
            self._fleet.close()


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
