"""Faults at random, one after another, on a small cluster; after each every promise is checked.

``TOWLINE_FAULTS`` says how many, ``TOWLINE_SEED`` which.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.e2e import faults
from tests.e2e.fleet import SHORT, Fleet, Machine, Stamps
from tests.e2e.history import judge, settled
from tests.e2e.home import until

FAULTS = int(os.environ.get("TOWLINE_FAULTS", "3"))
NODES = ["a", "b", "c"]
POLICIES = ["keep", "stop", "wait"]
ARRAY = 3
LONGEST_S = 9.0
"""Longer than it takes until a node is lost."""
ROLES = [("agent",), ("keeper",), ("supervisor",), ("agent", "keeper"), ("agent", "supervisor"),
         ("keeper", "supervisor"), ("agent", "keeper", "supervisor")]  # fmt: skip
HOUR_S = 3600
pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root"),
    pytest.mark.timeout(300 + 120 * FAULTS),
]


class Torture:
    """What may be done to a cluster; each does it, waits a while, and takes it back."""

    def __init__(self, fleet: Fleet, chance: random.Random) -> None:
        self.fleet = fleet
        self.chance = chance
        self.machines = [fleet.make(name) for name in NODES]
        self.disks = {machine.name: faults.Disk(machine.home, 48) for machine in self.machines}
        self.clocks = {machine.name: faults.Clock(machine) for machine in self.machines}
        fleet.start(*self.machines)

    def faults(self) -> list[Callable[[Machine], str]]:
        return [
            self.cut, self.flap, self.lose, self.freeze, self.kill, self.power, self.fill, self.jump,
            self.drain, self.kill_server, self.stop_server, self.freeze_server,
        ]  # fmt: skip

    def _while(self) -> float:
        lasted_s = self.chance.uniform(0.3, LONGEST_S)
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
        drained = self.fleet.http.post(f"/v1/nodes/{machine.name}/drain", json={"deadline": "500ms"})
        assert drained.status_code == 200, drained.text
        lasted_s = self._while()
        assert self.fleet.http.post(f"/v1/nodes/{machine.name}/undrain").status_code == 200
        return f"drained for {lasted_s:.1f} s"

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

    def freeze_server(self, _: Machine) -> str:
        assert self.fleet.server is not None
        self.fleet.server.send_signal(signal.SIGSTOP)
        lasted_s = self._while()
        self.fleet.server.send_signal(signal.SIGCONT)
        return f"server frozen for {lasted_s:.1f} s"


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    made = Fleet({**SHORT, "TOWLINE_MAINTENANCE": "12s"})
    try:
        yield made
    except BaseException:
        print(made.situation())  # noqa: T201 - shown where the test fails
        raise
    finally:
        made.close()


def test_random_faults_break_no_promise(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> None:
    seed = faults.seed()
    print(f"TOWLINE_SEED={seed}")  # noqa: T201
    chance = random.Random(seed)
    stamps = Stamps(tmp_path_factory.mktemp("shared") / "stamps")
    fleet.serve()
    torture = Torture(fleet, chance)
    waiting: list[Callable[[Machine], str]] = []
    for number in range(FAULTS):
        waiting = waiting or chance.sample(torture.faults(), k=len(torture.faults()))
        tasks = {f"{policy}{number}": _task(stamps, chance, policy) for policy in POLICIES}
        job = fleet.submit(f"round{number}", key=f"round{number}", **tasks)
        until(lambda: any(stamps.attempts(name) for name in tasks), "something to run")  # noqa: B023
        machine = chance.choice(torture.machines)
        told = waiting.pop()(machine)
        until(lambda: all(fleet.state(name) == "ready" for name in NODES), "all nodes to be back")
        until(lambda: fleet.get(f"/v1/jobs/{job}")["ended_at"], "the job to end")  # noqa: B023
        broken = judge(settled(fleet, stamps, [job]))
        verdict = "; ".join(broken) or "all promises kept"
        print(f"fault {number} on {machine.name}: {told}: {verdict}", flush=True)  # noqa: T201
        assert not broken, f"TOWLINE_SEED={seed}, fault {number}: {told}"


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
