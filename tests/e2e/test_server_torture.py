"""Faults at random on three servers, their database and their nodes; after each every promise is checked.

``TOWLINE_FAULTS`` says how many, ``TOWLINE_SEED`` which.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.e2e import faults
from tests.e2e.fleet import Machine, Stamps
from tests.e2e.home import until
from tests.e2e.several import Server, Several
from tests.e2e.test_recovery_torture import Torture, endure
from tests.postgres import DATABASE, USER, programs

from towline.cli.dev.network import entered

FAULTS = int(os.environ.get("TOWLINE_FAULTS", "3"))
TIMES = {
    "TOWLINE_LEADERSHIP_LEASE": "2s",
    "TOWLINE_HEARTBEAT": "500ms",
    "TOWLINE_NODE_LEASE": "6s",
    "TOWLINE_LEASE_GRACE": "1s",
    "TOWLINE_LOST_AFTER": "9s",
    "TOWLINE_LOST_AFTER_KEEP": "4s",
    "TOWLINE_MAINTENANCE": "12s",
}
CROWD = 60
"""As many connections as PostgreSQL takes."""
pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root"),
    pytest.mark.timeout(300 + 120 * FAULTS),
]


class OfServers(Torture):
    """What may be done to several servers, besides what may be done to nodes."""

    fleet: Several

    def __init__(self, fleet: Several, chance: random.Random) -> None:
        super().__init__(fleet, chance)
        self._hands = ThreadPoolExecutor(1)
        """PostgreSQL ends with the thread that has started it."""

    def of_server(self) -> list[Callable[[Machine], str]]:
        return [
            self.kill_leader,
            self.freeze_leader,
            self.cut_leader_from_store,
            self.isolate_leader,
            self.stop_leader,
            self.kill_two,
            self.freeze_follower,
            self.kill_follower,
            self.flap_leader_to_store,
            self.part_from_leader,
            self.restart_store,
            self.freeze_store,
            self.crowd_store,
            self.drain,
        ]

    def _back(self) -> None:
        self.fleet.lead()

    def kill_leader(self, _: Machine) -> str:
        return self._kill(self.fleet.leader(), "leader")

    def kill_follower(self, _: Machine) -> str:
        return self._kill(self.chance.choice(self.fleet.followers()), "follower")

    def _kill(self, server: Server, what: str) -> str:
        server.kill()
        lasted_s = self._while()
        server.start(self.fleet.environ)
        self._back()
        return f"{what} killed for {lasted_s:.1f} s"

    def kill_two(self, _: Machine) -> str:
        """The leader, and soon after it the next one."""
        first = self.fleet.leader()
        first.kill()
        until(lambda: self.fleet.leader() is not first, "another one to lead")
        second = self.fleet.leader()
        second.kill()
        lasted_s = self._while()
        for server in (first, second):
            server.start(self.fleet.environ)
        self._back()
        return f"leader and then the next one killed for {lasted_s:.1f} s"

    def stop_leader(self, _: Machine) -> str:
        server = self.fleet.leader()
        server.stop()
        lasted_s = self._while()
        server.start(self.fleet.environ)
        self._back()
        return f"leader stopped for {lasted_s:.1f} s"

    def freeze_leader(self, _: Machine) -> str:
        return self._freeze(self.fleet.leader(), "leader")

    def freeze_follower(self, _: Machine) -> str:
        return self._freeze(self.chance.choice(self.fleet.followers()), "follower")

    def _freeze(self, server: Server, what: str) -> str:
        server.signal(signal.SIGSTOP)
        lasted_s = self._while()
        server.signal(signal.SIGCONT)
        self._back()
        return f"{what} frozen for {lasted_s:.1f} s"

    def cut_leader_from_store(self, _: Machine) -> str:
        server = self.fleet.leader()
        server.cut_from_store()
        lasted_s = self._while()
        server.heal()
        self._back()
        return f"leader cut off from the store for {lasted_s:.1f} s"

    def isolate_leader(self, _: Machine) -> str:
        """From the store, the nodes and the other servers, one way or both."""
        server, chains = self.fleet.leader(), self.chance.choice((["INPUT"], ["OUTPUT"], ["INPUT", "OUTPUT"]))
        for chain in chains:
            command = [*entered(server.space), "iptables", "-A", chain, "-j", "DROP"]
            subprocess.run(command, check=True)
        lasted_s = self._while()
        server.heal()
        self._back()
        return f"leader's {' and '.join(chains)} cut for {lasted_s:.1f} s"

    def flap_leader_to_store(self, _: Machine) -> str:
        server, times, until_s = self.fleet.leader(), 0, time.monotonic() + self.chance.uniform(2, 12)
        while time.monotonic() < until_s:
            server.cut_from_store()
            time.sleep(self.chance.uniform(0.1, 3))
            server.heal()
            time.sleep(self.chance.uniform(0.1, 2))
            times += 1
        self._back()
        return f"leader cut off from the store {times} times"

    def part_from_leader(self, _: Machine) -> str:
        """A server does not reach the one that leads, but all else."""
        server, leader = self.chance.choice(self.fleet.followers()), self.fleet.leader()
        words = ["-d", leader.address.rpartition(":")[0], "-j", "DROP"]
        subprocess.run([*entered(server.space), "iptables", "-A", "OUTPUT", *words], check=True)
        lasted_s = self._while()
        server.heal()
        self._back()
        return f"a follower did not reach the leader for {lasted_s:.1f} s"

    def restart_store(self, _: Machine) -> str:
        self.fleet.postgres.stop(self.chance.choice((signal.SIGINT, signal.SIGQUIT)))
        lasted_s = self._while()
        self._hands.submit(self.fleet.postgres.start).result()
        self._back()
        return f"store away for {lasted_s:.1f} s"

    def freeze_store(self, _: Machine) -> str:
        pids = [self.fleet.postgres.pid, *self.fleet.postgres.children()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        lasted_s = self._while()
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        self._back()
        return f"store frozen for {lasted_s:.1f} s"

    def crowd_store(self, _: Machine) -> str:
        """Somebody else has taken all connections, those of the servers as well."""
        postgres = self.fleet.postgres
        psql = [str(programs() / "psql"), "-h", str(postgres.folder), "-U", USER, "-d", DATABASE, "-qAtX"]
        own = postgres.run("SELECT pid FROM pg_stat_activity WHERE application_name = 'towline'").split()
        others: list[subprocess.Popen[bytes]] = []
        for ended in ([], own):  # what the servers had is taken before they are back
            for pid in map(int, ended):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            others += [
                subprocess.Popen([*psql, "-c", "SELECT pg_sleep(600)"], stderr=subprocess.DEVNULL)
                for _ in range(CROWD)
            ]
        lasted_s = self._while()
        for process in others:
            process.kill()
            process.wait()
        for pid in postgres.children():  # they would sleep on
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if b"[local] SELECT" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGTERM)
        self._back()
        return f"store's connections taken by others for {lasted_s:.1f} s"


@pytest.fixture
def fleet() -> Iterator[Several]:
    made = Several(environ=TIMES)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_random_faults_of_servers_break_no_promise(
    fleet: Several, tmp_path_factory: pytest.TempPathFactory
) -> None:
    seed = faults.seed()
    print(f"TOWLINE_SEED={seed}")  # noqa: T201
    chance = random.Random(seed)
    stamps = Stamps(tmp_path_factory.mktemp("shared") / "stamps")
    endure(OfServers(fleet, chance), stamps, chance, FAULTS, seed)
