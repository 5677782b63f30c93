"""Nodes that are cut off, freeze, die and come back, all at once in one cluster, each with tasks of its own.

Times are short, all in proportion; with ``TOWLINE_FULL_TIMES=1`` they are the defaults, and who is frozen
is so for 40 s at least. What was alive when is told by what the tasks have written; the server is asked only
what it says of them.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from tests.e2e import faults
from tests.e2e.fleet import SHORT, Fleet, Stamps
from tests.e2e.history import judge, settled
from tests.e2e.home import until

SEED = faults.seed()
GAP_S = 0.3
"""The longest time between two faults, in an order of the seed."""
LONGEST_FLAP_S = 4.0
EPISODES = int(os.environ.get("TOWLINE_EPISODES", "1"))
FULL_TIMES = bool(os.environ.get("TOWLINE_FULL_TIMES"))
FROZEN_S = 40.0 if FULL_TIMES else 0.0
"""How long who is frozen is so at least."""
pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root"),
]

WAYS = ["both", "in", "out"]
"""The ways that are cut to a node."""
STOP = [*WAYS, "agent", "supervisor", "keeper"]
"""Under on_disconnect: stop, by what is done to their node: the ways that are cut, or who is frozen or killed
(with supervisor and keeper, both ways are cut as well)."""
NODES = [*STOP, "flap", "dead"]


class Episode(NamedTuple):
    """``elsewhere_s``: how long after its node had died what was under keep ran elsewhere."""

    fleet: Fleet
    stamps: Stamps
    job: str
    elsewhere_s: float


@pytest.fixture(scope="module", params=range(EPISODES))
def episode(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Episode]:
    seed = SEED + request.param
    print(f"TOWLINE_SEED={seed}")  # noqa: T201 - shown where a test fails
    fleet = Fleet({} if FULL_TIMES else SHORT)
    try:
        stamps = Stamps(tmp_path_factory.mktemp("shared") / "stamps")
        yield _unfold(fleet, stamps, random.Random(seed))
    except BaseException:
        print(fleet.situation())  # noqa: T201
        raise
    finally:
        fleet.close()


def _tasks(stamps: Stamps) -> dict[str, dict[str, Any]]:
    tasks = {name: stamps.task(name, "spare", every_s=0.01, on_disconnect="stop") for name in [*STOP, "flap"]}
    for way in [*WAYS, "flap"]:
        tasks[f"keep-{way}"] = stamps.task(way, "spare")
        tasks[f"wait-{way}"] = stamps.task(way, "spare", on_disconnect="wait")
    tasks["late"] = stamps.task("both", "spare")
    tasks["queued"] = stamps.task("both")
    tasks["dead"] = stamps.task("dead", "spare", every_s=0.01)
    tasks["rebooted"] = stamps.task("dead", "spare", every_s=0.01, on_disconnect="stop")
    return tasks


def _unfold(fleet: Fleet, stamps: Stamps, chance: random.Random) -> Episode:
    """Everything up to the job's end."""
    fleet.serve()
    machines = dict(zip(NODES, fleet.join(*NODES), strict=True))
    tasks = _tasks(stamps)
    job = fleet.submit("episode", **tasks)
    until(lambda: all(stamps.of(name, 1) for name in tasks), "all to run")
    fleet.join("spare")

    strikes = [(machines[name].cut_off, (name,)) for name in WAYS]
    strikes += [(machines[name].cut_off, ("both",)) for name in ("supervisor", "keeper")]
    strikes += [(machines[name].signal, (signal.SIGSTOP, name)) for name in ("agent", "supervisor")]
    strikes += [(machines["keeper"].signal, (signal.SIGKILL, "keeper"))]
    strikes += [(faults.power_off, (machines["dead"],))]
    chance.shuffle(strikes)
    with faults.flapping(machines["flap"], chance, LONGEST_FLAP_S):
        for strike, arguments in strikes:
            strike(*arguments)
            time.sleep(chance.uniform(0, GAP_S))
        struck_s = time.monotonic()
        stamps.end("late.0.1")
        moved = [*STOP, *(f"keep-{way}" for way in WAYS), "late", "dead", "rebooted"]
        until(lambda: all(stamps.of(name, 2) for name in moved), "all to run elsewhere")
        time.sleep(max(0.0, struck_s + FROZEN_S - time.monotonic()))

        faults.power_on(machines["dead"])
        for name, machine in machines.items():
            machine.signal(signal.SIGCONT, "agent", "keeper", "supervisor")
            if name != "flap":
                machine.heal()
        back = [name for name in NODES if name != "flap"]
        until(lambda: all(fleet.state(name) == "ready" for name in back), "all nodes to be back")
        until(lambda: _states(fleet, job, "queued") == ["running"], "what was queued to be taken back")
    until(lambda: fleet.state("flap") == "ready", "the one that flapped to be back")
    stamps.end()
    until(lambda: fleet.get(f"/v1/jobs/{job}")["ended_at"], "the job to end")
    return Episode(fleet, stamps, job, stamps.of("dead", 2)[0] - stamps.of("dead", 1)[-1])


def _states(fleet: Fleet, job: str, task: str) -> list[str]:
    return [attempt["state"] for attempt in fleet.attempts(job, task)]


def _attempts(episode: Episode, task: str) -> list[tuple[Any, ...]]:
    told = ("number", "node", "state", "reason", "exit_code")
    found = episode.fleet.attempts(episode.job, task)
    return [tuple(each[name] for name in told) for each in found]


@pytest.mark.parametrize("fault", STOP)
def test_under_stop_the_old_one_is_dead_before_the_new_one_starts(episode: Episode, fault: str) -> None:
    assert episode.stamps.attempts(fault) == [1, 2]
    assert episode.stamps.overlap_s(fault) < 0
    (_, _, first, reason, _), second = _attempts(episode, fault)
    assert (first, reason in ("node_lost", "lease_expired")) == ("lost", True)
    assert second[2:] == ("finished", "exited", 0)


@pytest.mark.parametrize("task", [*(f"keep-{way}" for way in WAYS), "late"])
def test_under_keep_it_runs_elsewhere_and_a_late_result_is_refused(episode: Episode, task: str) -> None:
    first, second = _attempts(episode, task)
    assert first[2:4] == ("lost", "node_lost")
    assert second[2:] == ("finished", "exited", 0)  # the first of "late" had ended with 7
    assert episode.stamps.attempts(task) == [1, 2]


def test_under_keep_what_is_still_queued_is_taken_back(episode: Episode) -> None:
    assert episode.stamps.attempts("queued") == [1]
    assert [each[2:] for each in _attempts(episode, "queued")] == [("finished", "exited", 0)]


@pytest.mark.parametrize("way", [*WAYS, "flap"])
def test_under_wait_nothing_is_placed_twice(episode: Episode, way: str) -> None:
    assert episode.stamps.attempts(f"wait-{way}") == [1]
    assert [each[2:] for each in _attempts(episode, f"wait-{way}")] == [("finished", "exited", 0)]


@pytest.mark.parametrize("task", ["keep-flap", "flap"])
def test_with_a_flapping_link_it_ends_once(episode: Episode, task: str) -> None:
    """However often its node was cut off for long enough."""
    assert _attempts(episode, task)[-1][2:] == ("finished", "exited", 0)
    assert episode.stamps.attempts(task) == [each[0] for each in _attempts(episode, task)]


def test_what_a_dead_node_had_runs_elsewhere_once(episode: Episode) -> None:
    for task in ("dead", "rebooted"):
        assert episode.stamps.attempts(task) == [1, 2]
        assert episode.stamps.overlap_s(task) < 0
        assert _attempts(episode, task)[1][2:] == ("finished", "exited", 0)


def test_with_a_short_lost_after_keep_it_runs_elsewhere_soon(episode: Episode) -> None:
    """Heartbeats every 0.5 s, lost after 3 s: within 5 s on a machine that is not busy, far below the 25 s
    that are the default otherwise."""
    print(f"elsewhere after {episode.elsewhere_s:.2f} s")  # noqa: T201
    lost_after_s, heartbeat_s = (25.0, 2.0) if FULL_TIMES else (3.0, 0.5)
    assert lost_after_s - heartbeat_s < episode.elsewhere_s < lost_after_s + 17


def test_every_promise_is_kept(episode: Episode) -> None:
    broken = judge(settled(episode.fleet, episode.stamps, [episode.job]), lost=NODES)
    assert not broken
    assert episode.fleet.get(f"/v1/jobs/{episode.job}")["state"] == "succeeded"
