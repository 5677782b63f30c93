"""Faults at random on three servers, PostgreSQL and three nodes; see tests/e2e/torture.py."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from tests.e2e import faults
from tests.e2e.fleet import Machine, Stamps
from tests.e2e.home import until
from tests.e2e.several import PORT, QUICK, STORE_PORT, Server, Several
from tests.e2e.torture import Torture, count, torment
from tests.postgres import DATABASE, USER, programs

from towline.cli.dev.network import entered

FAULTS = count(4)
CROWD = 60
"""As many connections as PostgreSQL takes."""
pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root"),
    pytest.mark.timeout(300 + 150 * FAULTS),
]


class ThreeServers(Torture):
    """Faults of servers strike the one that leads as often as another one."""

    fleet: Several
    longest_s = 9.0 if FAULTS < 20 else 20.0
    """In long runs long enough for nodes to be lost."""

    def __init__(self, fleet: Several, chance: random.Random) -> None:
        fleet.serve()
        super().__init__(fleet, chance)

    def of_server(self) -> list[Callable[[Machine], str]]:
        servers = [self.kill_server, self.freeze_server, self.stop_server]
        links = [self.cut_store, self.flap_store, self.isolate, self.part_servers]
        store = [self.kill_store, self.freeze_store, self.crowd_store]
        return [*servers, *links, *store, self.kill_two, *super().of_server()]

    def _struck(self) -> tuple[Server, str]:
        """A server, and what to call it."""
        leader = self.fleet.leader()
        if self.chance.random() < 0.5:
            return leader, "the leader"
        return self.chance.choice([one for one in self.fleet.up if one is not leader]), "a follower"

    def _serve_again(self, *servers: Server) -> None:
        for server in servers:
            server.start(self.fleet.environ)
        self.fleet.wait_ready()

    # --- servers ------------------------------------------------------------------------------------
    def kill_server(self, _: Machine) -> str:
        server, what = self._struck()
        server.kill()
        lasted_s = self._while()
        self._serve_again(server)
        return f"{what} killed for {lasted_s:.1f} s"

    def stop_server(self, _: Machine) -> str:
        server, what = self._struck()
        took_s = server.stop()
        lasted_s = self._while()
        self._serve_again(server)
        return f"{what} stopped in {took_s:.2f} s, for {lasted_s:.1f} s"

    def freeze_server(self, _: Machine) -> str:
        server, what = self._struck()
        server.signal(signal.SIGSTOP)
        lasted_s = self._while()
        server.signal(signal.SIGCONT)
        self.fleet.wait_ready()
        return f"{what} frozen for {lasted_s:.1f} s"

    def kill_two(self, _: Machine) -> str:
        one, what = self._struck()
        other = self.chance.choice([server for server in self.fleet.up if server is not one])
        one.kill()
        time.sleep(self.chance.uniform(0, 3))
        other.kill()
        lasted_s = self._while()
        self._serve_again(one, other)
        return f"{what} and another server killed for {lasted_s:.1f} s"

    # --- links --------------------------------------------------------------------------------------
    def _drop(self, server: Server, chain: str, *words: str) -> None:
        subprocess.run([*entered(server.space), "iptables", "-A", chain, *words, "-j", "DROP"], check=True)

    def _cut_store(self, server: Server, ways: str) -> None:
        if ways in ("out", "both"):
            self._drop(server, "OUTPUT", "-p", "tcp", "--dport", str(STORE_PORT))
        if ways in ("in", "both"):
            self._drop(server, "INPUT", "-p", "tcp", "--sport", str(STORE_PORT))

    def cut_store(self, _: Machine) -> str:
        server, what = self._struck()
        ways = self.chance.choice(("in", "out", "both"))
        self._cut_store(server, ways)
        lasted_s = self._while()
        server.heal()
        self.fleet.wait_ready()
        return f"{what} cut off from the database ({ways}) for {lasted_s:.1f} s"

    def flap_store(self, _: Machine) -> str:
        server, what = self._struck()
        until_s = time.monotonic() + self.chance.uniform(3, 2 * self.longest_s)
        times = 0
        while time.monotonic() < until_s:
            self._cut_store(server, self.chance.choice(("in", "out", "both")))
            time.sleep(self.chance.uniform(0.1, 3))
            server.heal()
            time.sleep(self.chance.uniform(0.1, 2))
            times += 1
        self.fleet.wait_ready()
        return f"{what} cut off from the database {times} times"

    def isolate(self, _: Machine) -> str:
        server, what = self._struck()
        for chain in ("INPUT", "OUTPUT"):
            self._drop(server, chain)
        lasted_s = self._while()
        server.heal()
        self.fleet.wait_ready()
        return f"{what} cut off from everybody for {lasted_s:.1f} s"

    def part_servers(self, _: Machine) -> str:
        """Two servers do not reach each other, but all else."""
        server, what = self._struck()
        other = self.chance.choice([one for one in self.fleet.up if one is not server])
        address = other.address.rpartition(":")[0]
        self._drop(server, "OUTPUT", "-p", "tcp", "--dport", str(PORT), "-d", address)
        lasted_s = self._while()
        server.heal()
        return f"{what} did not reach another server for {lasted_s:.1f} s"

    # --- the database -------------------------------------------------------------------------------
    def kill_store(self, _: Machine) -> str:
        self.fleet.postgres.stop(signal.SIGQUIT)
        lasted_s = self._while()
        self.fleet.postgres.start()
        self.fleet.wait_ready()
        return f"the database killed for {lasted_s:.1f} s"

    def freeze_store(self, _: Machine) -> str:
        postgres = self.fleet.postgres
        pids = [postgres.pid, *postgres.children()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        lasted_s = self._while()
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        self.fleet.wait_ready()
        return f"the database frozen for {lasted_s:.1f} s"

    def crowd_store(self, _: Machine) -> str:
        """Somebody else has taken all connections, and the servers' own are ended."""
        postgres = self.fleet.postgres
        psql = [str(programs() / "psql"), "-h", str(postgres.folder), "-U", USER, "-d", DATABASE, "-qAtX"]
        begun = [
            subprocess.Popen([*psql, "-c", "SELECT pg_sleep(600)"], stderr=subprocess.DEVNULL)
            for _ in range(CROWD)
        ]
        postgres.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'towline'",
            "postgres",
        )
        lasted_s = self._while()
        for process in begun:
            process.kill()
            process.wait()
        self.fleet.wait_ready()
        return f"the database's connections taken by others for {lasted_s:.1f} s"


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    made = Several(environ={**QUICK, "TOWLINE_MAINTENANCE": "12s"})
    try:
        yield made
    finally:
        made.close()


def test_random_faults_break_no_promise(fleet: Several, tmp_path_factory: pytest.TempPathFactory) -> None:
    seed = faults.seed()
    stamps = Stamps(tmp_path_factory.mktemp("shared") / "stamps")
    torture = ThreeServers(fleet, random.Random(seed))
    torment(torture, stamps, FAULTS, seed=seed)
    until(lambda: len(fleet.views(fleet.up[0])) >= len(fleet.servers), "all servers to be told of")
