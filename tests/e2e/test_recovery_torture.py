"""Faults at random on a cluster of one server; see tests/e2e/torture.py."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator

import pytest
from tests.e2e import faults
from tests.e2e.fleet import SHORT, Fleet, Machine, Stamps
from tests.e2e.torture import Torture, count, torment

FAULTS = count(3)
pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root"),
    pytest.mark.timeout(300 + 120 * FAULTS),
]


class OneServer(Torture):
    def __init__(self, fleet: Fleet, chance: random.Random) -> None:
        self.server_disk = faults.Disk(fleet.home, 200)
        fleet.serve()
        super().__init__(fleet, chance)

    def of_server(self) -> list[Callable[[Machine], str]]:
        own = [self.kill_server, self.stop_server, self.freeze_server, self.fill_server]
        return [*own, *super().of_server()]

    def kill_server(self, _: Machine) -> str:
        self.fleet.kill_server()
        lasted_s = self._while()
        self.fleet.serve()
        return f"server killed for {lasted_s:.1f} s"

    def stop_server(self, _: Machine) -> str:
        assert self.fleet.server is not None
        self.fleet.server.send_signal(signal.SIGTERM)
        self.fleet.server.wait()
        lasted_s = self._while()
        self.fleet.serve()
        return f"server stopped for {lasted_s:.1f} s"

    def fill_server(self, _: Machine) -> str:
        self.server_disk.fill()
        lasted_s = self._while()
        self.server_disk.free()
        self.fleet.lead()
        return f"server's disk full for {lasted_s:.1f} s"

    def freeze_server(self, _: Machine) -> str:
        assert self.fleet.server is not None
        self.fleet.server.send_signal(signal.SIGSTOP)
        lasted_s = self._while()
        self.fleet.server.send_signal(signal.SIGCONT)
        self.fleet.lead()
        return f"server frozen for {lasted_s:.1f} s"


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    made = Fleet({**SHORT, "TOWLINE_MAINTENANCE": "12s"})
    try:
        yield made
    finally:
        made.close()


def test_random_faults_break_no_promise(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> None:
    seed = faults.seed()
    stamps = Stamps(tmp_path_factory.mktemp("shared") / "stamps")
    torment(OneServer(fleet, random.Random(seed)), stamps, FAULTS, seed=seed)
