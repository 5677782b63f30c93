"""Faults at random, one after another, on a small cluster; after each every promise is checked.

``TOWLINE_FAULTS`` says how many, this cluster and those of test_server_torture.py taken together;
``TOWLINE_SEED`` which.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.e2e import faults
from tests.e2e.fleet import SHORT, Fleet, Machine, Stamps
from tests.e2e.history import judge, settled
from tests.e2e.home import until

FAULTS = faults.asked_for("one server") if os.environ.get("TOWLINE_FAULTS") else 3
NODES = ["a", "b", "c"]
POLICIES = ["keep", "stop", "wait"]
ARRAY = 3
LONGEST_S = 9.0
"""Longer than it takes until a node is lost."""
SHORT_S = 5.0
"""Long enough for another server to lead."""
ROLES = [("agent",), ("keeper",), ("supervisor",), ("agent", "keeper"), ("agent", "supervisor"),
         ("keeper", "supervisor"), ("agent", "keeper", "supervisor")]  # fmt: skip
HOUR_S = 3600
pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root"),
    pytest.mark.skipif(FAULTS == 0, reason="TOWLINE_FAULTS leaves none to this cluster"),
    pytest.mark.timeout(300 + 120 * FAULTS),
]


class Torture:
    """What may be done to a cluster; each does it, waits a while, and takes it back."""

    def __init__(self, fleet: Fleet, chance: random.Random) -> None:
        self.server_disk = faults.Disk(fleet.home, 200)
        fleet.serve()
        self.fleet = fleet
        self._order = chance
        self._local = threading.local()
        self._one_at_a_time = threading.Lock()
        self.machines = [fleet.make(name) for name in NODES]
        self.disks = {machine.name: faults.Disk(machine.home, 48) for machine in self.machines}
        self.clocks = {machine.name: faults.Clock(machine) for machine in self.machines}
        self._waiting: list[Callable[[Machine], str]] = []
        self._called = 0
        self.struck: list[str] = []
        """What was done last."""
        self.longest_s = LONGEST_S
        self.pairs = True
        """Whether every third time two things happen at once."""
        fleet.start(*self.machines)

    def faults(self) -> list[Callable[[Machine], str]]:
        of_nodes = [self.cut, self.flap, self.lose, self.freeze, self.kill, self.power, self.fill, self.jump]
        return [*of_nodes, *self.of_server()]

    def of_server(self) -> list[Callable[[Machine], str]]:
        """These are about the server, or need one."""
        return [self.kill_server, self.stop_server, self.freeze_server, self.fill_server, self.drain]

    def one(self) -> str:
        """One of them, or on every third call two at once, on two machines."""
        self._called += 1
        machines = self._order.sample(self.machines, k=2 if self.pairs and self._called % 3 == 0 else 1)
        chosen = [self._next() for _ in machines]
        self.struck = [fault.__name__ for fault in chosen]
        with ThreadPoolExecutor() as threads:
            strikes = [
                threads.submit(self._strike, fault, each, self._order.random())
                for fault, each in zip(chosen, machines, strict=True)
            ]
            return " and ".join(strike.result() for strike in strikes)

    def begin_with(self, *chosen: Callable[[Machine], str]) -> None:
        """These come first, one at a time, and are over soon."""
        self._waiting = list(reversed(chosen))
        self.longest_s, self.pairs = SHORT_S, False

    def _next(self) -> Callable[[Machine], str]:
        self._waiting = self._waiting or self._order.sample(self.faults(), k=len(self.faults()))
        return self._waiting.pop()

    def _strike(self, fault: Callable[[Machine], str], machine: Machine, seed: float) -> str:
        self._local.chance = random.Random(seed)
        if fault not in self.of_server():
            return f"{machine.name} {fault(machine)}"
        with self._one_at_a_time:
            return fault(machine)

    @property
    def chance(self) -> random.Random:
        """Of this thread, so that a seed stands for the same faults whatever threads there are."""
        return self._local.chance

    def _while(self) -> float:
        lasted_s = self.chance.uniform(0.3, self.longest_s)
        time.sleep(lasted_s)
        return lasted_s

    def cut(self, machine: Machine) -> str:
        ways = self.chance.choice(("in", "out", "both"))
        machine.cut_off(ways)
        lasted_s = self._while()
        machine.heal()
        return f"{ways} cut for {lasted_s:.1f} s"

    def flap(self, machine: Machine) -> str:
        with faults.flapping(machine, self.chance, 3.0):
            return f"flapped for {self._while():.1f} s"

    def lose(self, machine: Machine) -> str:
        share = self.chance.uniform(0.2, 0.5)
        machine.lose(share)
        lasted_s = self._while()
        machine.heal()
        return f"lost {share:.0%} of all packets for {lasted_s:.1f} s"

    def freeze(self, machine: Machine) -> str:
        role = self.chance.choice(("agent", "keeper", "supervisor"))
        machine.signal(signal.SIGSTOP, role)
        lasted_s = self._while()
        machine.signal(signal.SIGCONT, role)
        return f"{role} frozen for {lasted_s:.1f} s"

    def kill(self, machine: Machine) -> str:
        roles = self.chance.choice(ROLES)
        machine.signal(signal.SIGKILL, *roles)
        lasted_s = self._while()
        if "agent" in roles:
            machine.start()
        return f"{', '.join(roles)} killed {lasted_s:.1f} s ago"

    def power(self, machine: Machine) -> str:
        faults.power_off(machine)
        lasted_s = self._while()
        faults.power_on(machine)
        return f"without power for {lasted_s:.1f} s"

    def fill(self, machine: Machine) -> str:
        self.disks[machine.name].fill()
        lasted_s = self._while()
        self.disks[machine.name].free()
        return f"disk full for {lasted_s:.1f} s"

    def jump(self, machine: Machine) -> str:
        by_s = self.chance.choice((-1, 1)) * self.chance.randint(1, HOUR_S)
        self.clocks[machine.name].jump(by_s)
        self._while()
        return f"clock {by_s:+d} s"

    def drain(self, machine: Machine) -> str:
        drained = self.fleet.ask("POST", f"/v1/nodes/{machine.name}/drain", json={"deadline": "500ms"})
        assert drained.status_code == 200, drained.text
        lasted_s = self._while()
        assert self.fleet.ask("POST", f"/v1/nodes/{machine.name}/undrain").status_code == 200
        return f"{machine.name} drained for {lasted_s:.1f} s"

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
    chance = random.Random(seed)
    stamps = Stamps(tmp_path_factory.mktemp("shared") / "stamps")
    endure(Torture(fleet, chance), stamps, chance, FAULTS, seed, "one server")


def endure(torture: Torture, stamps: Stamps, chance: random.Random, count: int, seed: int, what: str) -> None:
    """Says the seed, each fault with its verdict, and the verdict of all."""
    fleet, begun_s = torture.fleet, time.monotonic()
    print(f"\n{what}: TOWLINE_SEED={seed}, {count} faults", flush=True)  # noqa: T201
    for number in range(count):
        tasks = {f"{policy}{number}": _task(stamps, chance, policy) for policy in POLICIES}
        job = fleet.submit(f"round{number}", key=f"round{number}", **tasks)
        until(lambda: any(stamps.attempts(name) for name in tasks), "something to run")  # noqa: B023
        after_s = time.monotonic() - begun_s
        try:
            told = torture.one()
        except BaseException:
            print(f"fault {number}, after {after_s:.0f} s: {torture.struck} could not be taken back")  # noqa: T201
            raise
        print(f"fault {number}, after {after_s:.0f} s: {told}: ", end="", flush=True)  # noqa: T201
        until(lambda: all(fleet.state(name) == "ready" for name in NODES), "all nodes to be back")
        until(lambda: fleet.get(f"/v1/jobs/{job}")["ended_at"], "the job to end")  # noqa: B023
        broken = judge(settled(fleet, stamps, [job]))
        verdict = "; ".join(broken) or "all promises kept"
        print(verdict, flush=True)  # noqa: T201
        assert not broken, f"{what}: TOWLINE_SEED={seed}, fault {number}: {told}"
    print(f"{what}: TOWLINE_SEED={seed}, {count} faults: all promises kept", flush=True)  # noqa: T201


def _task(stamps: Stamps, chance: random.Random, policy: str) -> dict[str, Any]:
    return stamps.task(
        *NODES,
        code=chance.choice((0, 0, 3)),
        every_s=0.02,
        lasts_s=chance.uniform(1, 6),
        array=ARRAY,
        grace="1s",
        on_disconnect=policy,
    )
