"""What may be done to several servers, their database and the ensemble that has their leases, besides what
may be done to nodes."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests import zookeeper
from tests.e2e import faults
from tests.e2e.fleet import Machine
from tests.e2e.home import until
from tests.e2e.several import STORE_PORTS, Server, Several
from tests.e2e.test_recovery_torture import HOUR_S, Torture
from tests.postgres import DATABASE, USER, Postgres, programs, send

from towline.cli.dev.network import entered

CROWD = 60
"""As many connections as PostgreSQL takes."""
LONG_AWAY_S = 20.0
"""How long a database may be away; others are back sooner."""
BOTH = (["INPUT"], ["OUTPUT"], ["INPUT", "OUTPUT"])


class OfServers(Torture):
    """Three servers on one PostgreSQL, which has a standby."""

    fleet: Several

    def __init__(self, fleet: Several, chance: random.Random) -> None:
        self.server_clocks = self._set_clocks(fleet)
        super().__init__(fleet, chance)
        self._hands = ThreadPoolExecutor(1)
        """PostgreSQL and ZooKeeper end with the thread that has started them."""

    def _set_clocks(self, fleet: Several) -> dict[str, faults.Clock]:
        """Before they start."""
        return {server.name: faults.Clock(server) for server in fleet.servers}

    def _by_hand(self, work: Callable[[], object]) -> None:
        self._hands.submit(work).result()

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
            self.part_two,
            self.restart_store,
            self.kill_store,
            self.freeze_store,
            self.freeze_standby,
            self.crowd_store,
            self.fill_store,
            self.fail_over,
            self.jump_server,
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
        server, chains = self.fleet.leader(), self.chance.choice(BOTH)
        _drop(server.space, chains)
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

    def part_two(self, _: Machine) -> str:
        """Any two that speak to each other do not, one way or both, for a while or again and again; both
        reach all else."""
        server = self.chance.choice(self.fleet.up)
        others = [one for one in self.fleet.up if one is not server]
        other = self.chance.choice([*others, *self.machines, None])
        chains, flaps = self.chance.choice(BOTH), self.chance.random() < 0.5
        until_s = time.monotonic() + self.chance.uniform(2, 12)
        times = 0
        while times == 0 or (flaps and time.monotonic() < until_s):
            if other is None:
                _drop(server.space, chains, STORE_PORTS)
            else:
                _drop(server.space, chains, address=self.fleet.address_of(other))
            time.sleep(self.chance.uniform(0.1, 3) if flaps else max(0.0, until_s - time.monotonic()))
            server.heal()
            time.sleep(self.chance.uniform(0.1, 2) if flaps else 0)
            times += 1
        self._back()
        name = "the store" if other is None else other.name
        return f"{server.name} and {name} parted ({' and '.join(chains)}), {times} times"

    def restart_store(self, _: Machine) -> str:
        how = self.chance.choice((signal.SIGINT, signal.SIGQUIT))
        self.fleet.postgres.stop(how)
        lasted_s = self._while()
        self._by_hand(self.fleet.postgres.start)
        self._back()
        return f"store stopped ({how.name}) for {lasted_s:.1f} s"

    def kill_store(self, _: Machine) -> str:
        self.fleet.postgres.kill()
        lasted_s = self.chance.uniform(0.3, self.longest_s)
        if self.pairs and self.chance.random() < 0.5:
            lasted_s = LONG_AWAY_S
        time.sleep(lasted_s)
        self._by_hand(self.fleet.postgres.start)
        self._back()
        return f"store killed for {lasted_s:.1f} s"

    def freeze_store(self, _: Machine) -> str:
        return self._freeze_database(self.fleet.postgres, "store")

    def freeze_standby(self, _: Machine) -> str:
        """Nothing is confirmed meanwhile."""
        assert self.fleet.pair is not None
        return self._freeze_database(self.fleet.pair.standby, "store's standby")

    def _freeze_database(self, database: Postgres, what: str) -> str:
        pids = database.processes()
        send(pids, signal.SIGSTOP)
        lasted_s = self._while()
        send(pids, signal.SIGCONT)
        self._back()
        return f"{what} frozen for {lasted_s:.1f} s"

    def fill_store(self, _: Machine) -> str:
        assert self.fleet.pair is not None
        before = self._stepped_down()
        self.fleet.pair.fill()
        lasted_s = self._while()
        ended = ", which ended it" if self.fleet.pair.primary.ended() else ""
        self.fleet.pair.free()
        self._back()
        refused = self._stepped_down() - before
        return f"store's disk full for {lasted_s:.1f} s{ended}, {refused} leaders refused"

    def _stepped_down(self) -> int:
        return sum(server.log.count("stepping down") for server in self.fleet.servers)

    def fail_over(self, _: Machine) -> str:
        """For good: what is confirmed is on the standby. The old one may wake later, and confirms nothing."""
        pair, asleep = self.fleet.pair, self.chance.random() < 0.5
        assert pair is not None
        pair.fail_over(asleep=asleep)
        lasted_s = self._while()
        if asleep:
            pair.wake()
            time.sleep(self.chance.uniform(0, 4))
        pair.rebuild()
        self._back()
        return f"store {'frozen' if asleep else 'killed'}, its standby alone for {lasted_s:.1f} s"

    def jump_server(self, _: Machine) -> str:
        server = self.chance.choice((self.fleet.leader(), *self.fleet.servers))
        by_s = self.chance.choice((-1, 1)) * self.chance.randint(1, HOUR_S)
        self.server_clocks[server.name].jump(by_s)
        self._while()
        return f"clock of {server.name} {by_s:+d} s"

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


class OfEnsemble(OfServers):
    """Three servers on one PostgreSQL, whose leases are in a ZooKeeper ensemble of three."""

    def of_server(self) -> list[Callable[[Machine], str]]:
        return [
            self.lose_quorum,
            self.kill_ensembles_leader,
            self.kill_ensembles_follower,
            self.sleep_through_session,
            self.cut_leader_from_ensemble,
            self.freeze_ensemble,
            self.kill_leader,
            self.stop_leader,
            self.kill_two,
            self.freeze_leader,
            self.cut_leader_from_store,
            self.isolate_leader,
            self.part_two,
            self.restart_store,
            self.crowd_store,
            self.drain,
        ]

    def _set_clocks(self, fleet: Several) -> dict[str, faults.Clock]:
        """The real ones: libfaketime makes time.sleep fail, which kazoo's thread calls, and dies of it."""
        return {}

    @property
    def ensemble(self) -> zookeeper.Ensemble:
        assert self.fleet.ensemble is not None
        return self.fleet.ensemble

    def lose_quorum(self, _: Machine) -> str:
        dead = self.chance.sample(self.ensemble.servers, k=2)
        return self._kill_members(dead, "ensemble without a quorum")

    def kill_ensembles_leader(self, _: Machine) -> str:
        return self._kill_members([self.ensemble.leader()], "ensemble's leader killed")

    def kill_ensembles_follower(self, _: Machine) -> str:
        leader = self.ensemble.leader()
        others = [one for one in self.ensemble.servers if one is not leader]
        return self._kill_members([self.chance.choice(others)], "one of the ensemble killed")

    def _kill_members(self, dead: Sequence[zookeeper.Server], what: str) -> str:
        for one in dead:
            one.kill()
        lasted_s = self._while()
        for one in dead:
            self._by_hand(one.start)
        self.ensemble.wait()
        self._back()
        return f"{what} for {lasted_s:.1f} s"

    def freeze_ensemble(self, _: Machine) -> str:
        for one in self.ensemble.servers:
            one.signal(signal.SIGSTOP)
        lasted_s = self._while()
        for one in self.ensemble.servers:
            one.signal(signal.SIGCONT)
        self.ensemble.wait()
        self._back()
        return f"ensemble frozen for {lasted_s:.1f} s"

    def sleep_through_session(self, _: Machine) -> str:
        """The leader is frozen until ZooKeeper has ended its session, and then for a while."""
        server, before = self.fleet.leader(), len(self.fleet.servers)
        until(lambda: self.ensemble.leader().sessions == before, "each server to have one session")
        begun_s = time.monotonic()
        server.signal(signal.SIGSTOP)
        until(lambda: self.ensemble.leader().sessions < before, "the session to expire")
        time.sleep(self.chance.uniform(0, 2))
        server.signal(signal.SIGCONT)
        self._back()
        return f"leader frozen, its session gone, for {time.monotonic() - begun_s:.1f} s"

    def cut_leader_from_ensemble(self, _: Machine) -> str:
        server = self.fleet.leader()
        server.cut_from_ports([port for _, port in (one.place for one in self.ensemble.servers)])
        lasted_s = self._while()
        server.heal()
        self._back()
        return f"leader cut off from the ensemble for {lasted_s:.1f} s"


def _drop(space: str, chains: Sequence[str], ports: Sequence[int] = (), address: str = "") -> None:
    """What comes in from, or goes out to, an address or ports; all where neither is said."""
    for chain in chains:
        out = chain == "OUTPUT"
        words = ["-d" if out else "-s", address] if address else []
        if ports:
            named = ",".join(map(str, ports))
            words = ["-p", "tcp", "-m", "multiport", "--dports" if out else "--sports", named]
        subprocess.run([*entered(space), "iptables", "-A", chain, *words, "-j", "DROP"], check=True)
