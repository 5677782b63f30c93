"""At default settings: packets that get lost, clocks that jump, full disks, a long time without a server.

One cluster, in which all this happens; only the node that dies may be declared lost.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from tests.e2e import faults
from tests.e2e.fleet import Fleet, Stamps
from tests.e2e.history import judge, settled
from tests.e2e.home import until
from tests.small_disk import SmallDisk

ALONE_S = float(os.environ.get("TOWLINE_ALONE_S", "60"))
"""How long there is no server."""
LOSSY_S = float(os.environ.get("TOWLINE_LOSSY_S", "30"))
"""How long packets get lost, at least."""
SHARE = 0.3
HOUR_S = 3600
NODES = ["lossy", "clock", "small", "dying", "spare"]
STEADY = ["lossy", "clock", "small"]
POLICIES = ["keep", "stop", "wait"]
ENDED_ALONE = 6
"""Elements that end while there is no server."""
pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root"),
    pytest.mark.timeout(600 + 4 * (ALONE_S + LOSSY_S)),
]


class Story(NamedTuple):
    fleet: Fleet
    stamps: Stamps
    jobs: list[str]
    elsewhere_s: float
    told: dict[str, str]
    """What was said of full disks, by machine."""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    fleet = Fleet({})
    try:
        stamps = Stamps(tmp_path_factory.mktemp("shared") / "stamps")
        yield _unfold(fleet, stamps)
    except BaseException:
        print(fleet.situation())  # noqa: T201 - shown where a test fails
        raise
    finally:
        fleet.close()


def _unfold(fleet: Fleet, stamps: Stamps) -> Story:
    server_disk = SmallDisk(fleet.home, "96m")
    fleet.serve()
    machines = {name: fleet.make(name) for name in NODES}
    disk = SmallDisk(machines["small"].home, "32m")
    clock = faults.Clock(machines["clock"])
    spare = machines["spare"]
    fleet.start(*(machine for machine in machines.values() if machine is not spare))
    steady = {
        f"{policy}-{name}": stamps.task(name, on_disconnect=policy) for policy in POLICIES for name in STEADY
    }
    steady["moved"] = stamps.task("dying", "spare")
    first = fleet.submit("steady", **steady)
    until(lambda: all(stamps.of(name, 1) for name in steady), "all to run")
    fleet.start(spare)  # only now, so that what is to move is on the node that dies
    began_s = time.monotonic()

    # All at once: a node loses packets, one has a clock that jumps, one has a full disk, one dies.
    machines["lossy"].lose(SHARE)
    clock.jump(HOUR_S)
    disk.fill()
    faults.power_off(machines["dying"])
    flow = {f"flow-{name}": stamps.task(name, array=20, lasts_s=1, retries={"limit": 3}) for name in STEADY}
    second = fleet.submit("flow", **flow)
    until(lambda: stamps.of("moved", 2), "what the dead node had to run elsewhere")
    elsewhere_s = stamps.of("moved", 2)[0] - stamps.of("moved", 1)[-1]
    until(lambda: time.monotonic() > began_s + LOSSY_S, "some time to pass", LOSSY_S + 30)
    told = {"small": until(lambda: _problem_of(fleet, "small"), "the node to say that its disk is full")}
    clock.jump(-HOUR_S)
    disk.free()
    until(lambda: _ended(fleet, second, "flow-clock", "flow-lossy"), "the other nodes' work to end")
    machines["lossy"].heal()
    faults.power_on(machines["dying"])
    until(lambda: _ended(fleet, second, *flow), "all that was submitted meanwhile to end")
    third = fleet.submit("after", **{"after-small": stamps.task("small", lasts_s=0.1)})
    until(lambda: _ended(fleet, third, "after-small"), "the node with room again to work")

    told["server"], fourth = _fill_server(fleet, stamps, server_disk)

    # There is no server for a long time, in which some of the work ends.
    alone = {f"alone-{name}": stamps.task(name, array=ENDED_ALONE, code=3) for name in STEADY}
    fifth = fleet.submit("alone", **alone)
    until(
        lambda: all(stamps.of(name, 1, index) for name in alone for index in range(ENDED_ALONE)), "all to run"
    )
    fleet.kill_server()
    killed_s = time.monotonic()
    stamps.end("alone-lossy")
    stamps.end("alone-small")
    until(lambda: time.monotonic() > killed_s + ALONE_S, "a long time to pass", ALONE_S + 30)
    stamps.end("alone-clock")
    fleet.serve()
    until(lambda: all(fleet.state(name) == "ready" for name in STEADY), "all nodes to be back")
    until(lambda: _ended(fleet, fifth, *alone), "what ended meanwhile to be told")
    stamps.end()
    jobs = [first, second, third, fourth, fifth]
    until(lambda: all(fleet.get(f"/v1/jobs/{job}")["ended_at"] for job in jobs), "all jobs to end")
    return Story(fleet, stamps, jobs, elsewhere_s, told)


def _fill_server(fleet: Fleet, stamps: Stamps, disk: SmallDisk) -> tuple[str, str]:
    """Its disk is full: it refuses, and goes on by itself. Returns what it said, and the job taken then."""
    disk.fill()
    said = until(lambda: _refused(fleet, stamps), "a submission to be refused")
    disk.free()
    job = until(lambda: _accepted(fleet, stamps), "a submission to be taken again")
    until(lambda: all(fleet.state(name) == "ready" for name in STEADY), "its nodes to be back")
    until(lambda: _ended(fleet, job, "room"), "that to end")
    return said, job


def _ended(fleet: Fleet, job: str, *tasks: str) -> bool:
    view = fleet.get(f"/v1/jobs/{job}")
    states = {task["name"]: task["state"] for task in view["tasks"]}
    return all(states[name] in ("succeeded", "failed") for name in tasks)


def _problem_of(fleet: Fleet, name: str) -> str | None:
    (node,) = (node for node in fleet.get("/v1/nodes")["nodes"] if node["name"] == name)
    return node["runtimes"]["process"]


def _room(stamps: Stamps) -> dict[str, Any]:
    return {"room": stamps.task("small", lasts_s=0.1, env={"X": "x" * 100_000})}


def _refused(fleet: Fleet, stamps: Stamps) -> str | None:
    body = {"document": {"name": "room", "tasks": _room(stamps)}, "params": {}, "base_dir": None}
    answer = fleet.http.post("/v1/jobs", json=body, headers={"idempotency-key": "room"})
    return answer.json()["detail"] if answer.status_code == 503 else None


def _accepted(fleet: Fleet, stamps: Stamps) -> str | None:
    if _refused(fleet, stamps) is not None:
        return None
    return fleet.submit("room", key="room", **_room(stamps))


def test_at_default_settings_the_work_of_a_dead_node_runs_elsewhere(story: Story) -> None:
    """Within 30 s on a machine that is not busy."""
    print(f"elsewhere after {story.elsewhere_s:.2f} s")  # noqa: T201
    assert 25 - 2 < story.elsewhere_s < 60


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("node", STEADY)
def test_neither_loss_nor_clock_nor_disk_ends_what_runs(story: Story, node: str, policy: str) -> None:
    """Under stop it ends only where there is no server for longer than the lease."""
    attempts = story.stamps.attempts(f"{policy}-{node}")
    assert attempts == [1] if policy != "stop" else len(attempts) <= 2


def test_a_full_disk_is_named(story: Story) -> None:
    assert "disk" in story.told["server"]
    assert "disk" in story.told["small"]


@pytest.mark.parametrize("node", STEADY)
def test_what_ended_without_a_server_is_told_afterwards(story: Story, node: str) -> None:
    ends = [
        (each["number"], each["exit_code"]) for each in story.fleet.attempts(story.jobs[4], f"alone-{node}")
    ]
    assert ends == [(1, 3)] * ENDED_ALONE


def test_the_clock_of_a_node_really_jumped_and_nobody_minded(story: Story) -> None:
    """Its log has the times of its own clock; its certificate is valid in all of them."""
    log = (story.fleet.folder / "clock" / "agent.log").read_text()
    assert "Traceback" not in log
    assert len({line[11:13] for line in log.splitlines()}) > 1


def test_every_promise_is_kept(story: Story) -> None:
    assert not judge(settled(story.fleet, story.stamps, story.jobs), lost=["dying"])
