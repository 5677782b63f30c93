"""Nodes that are cut off, freeze, die and come back, all at once in one cluster, each with tasks of its own.

What was alive when is told by what the tasks have written; the server is asked only what it says of them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from tests.e2e.fleet import Fleet, Stamps
from tests.e2e.home import Home, until

SEED = int(os.environ.get("TOWLINE_SEED", random.SystemRandom().randrange(2**32)))
GAP_S = 0.3
"""The longest time between two faults, in an order of the seed."""
EPISODES = int(os.environ.get("TOWLINE_EPISODES", "1"))
pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root"),
]

STOP = ["both", "in", "out", "agent", "supervisor", "keeper"]
"""Under on_disconnect: stop, by what is done to their node: the ways that are cut, or who is frozen or killed
(with supervisor and keeper, both ways are cut as well)."""


class Episode(NamedTuple):
    fleet: Fleet
    stamps: Stamps
    job: str


@pytest.fixture(scope="module", params=range(EPISODES))
def episode(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Episode]:
    seed = SEED + request.param
    print(f"TOWLINE_SEED={seed}")  # noqa: T201 - shown where a test fails
    fleet = Fleet()
    try:
        stamps = Stamps(tmp_path_factory.mktemp("shared") / "stamps")
        yield Episode(fleet, stamps, _unfold(fleet, stamps, random.Random(seed)))
    except BaseException:
        print(fleet.situation())  # noqa: T201
        raise
    finally:
        fleet.close()


def _unfold(fleet: Fleet, stamps: Stamps, chance: random.Random) -> str:
    """Everything up to the job's end; returns the job."""
    fleet.serve()
    machines = dict(zip([*STOP, "dead"], fleet.join(*STOP, "dead"), strict=True))
    tasks = {name: stamps.task(name, "spare", on_disconnect="stop") for name in STOP}
    tasks |= {name: stamps.task("both", "spare") for name in ("keep", "late")}
    tasks["queued"] = stamps.task("both")
    tasks["wait"] = stamps.task("both", "spare", on_disconnect="wait")
    tasks["dead"] = stamps.task("dead", "spare")
    tasks["rebooted"] = stamps.task("dead", "spare", on_disconnect="stop")
    job = fleet.submit("episode", **tasks)
    until(lambda: all(stamps.of(name, 1) for name in tasks), "all to run")
    fleet.join("spare")

    faults = [(name, machines[name].cut_off, (name,)) for name in ("both", "in", "out")]
    faults += [(name, machines[name].cut_off, ("both",)) for name in ("supervisor", "keeper")]
    faults += [(name, machines[name].signal, (signal.SIGSTOP, name)) for name in ("agent", "supervisor")]
    faults += [("keeper", machines["keeper"].signal, (signal.SIGKILL, "keeper"))]
    faults += [("dead", machines["dead"].die, ())]
    chance.shuffle(faults)
    for _, strike, arguments in faults:
        strike(*arguments)
        time.sleep(chance.uniform(0, GAP_S))
    stamps.end("late.0.1")
    moved = [*STOP, "keep", "late", "dead", "rebooted"]
    until(lambda: all(stamps.of(name, 2) for name in moved), "all to run elsewhere")

    rebooted = machines["dead"]
    for name in ("journal", "lease", "leased", "attempts", "exits"):
        path = rebooted.home / "node" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    rebooted.start()
    for machine in machines.values():
        machine.signal(signal.SIGCONT, "agent", "keeper", "supervisor")
        machine.heal()
    until(lambda: all(fleet.state(name) == "ready" for name in machines), "all nodes to be back")
    until(lambda: _states(fleet, job, "queued") == ["running"], "what was queued to be taken back")
    stamps.end()
    until(lambda: fleet.get(f"/v1/jobs/{job}")["ended_at"], "the job to end")
    return job


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


def test_under_keep_it_runs_elsewhere_and_a_late_result_is_refused(episode: Episode) -> None:
    for task in ("keep", "late"):
        first, second = _attempts(episode, task)
        assert first[2:4] == ("lost", "node_lost")
        assert second[2:] == ("finished", "exited", 0)  # the first of "late" had ended with 7
    assert episode.stamps.attempts("late") == episode.stamps.attempts("keep") == [1, 2]


def test_under_keep_what_is_still_queued_is_taken_back(episode: Episode) -> None:
    assert episode.stamps.attempts("queued") == [1]
    assert [each[2:] for each in _attempts(episode, "queued")] == [("finished", "exited", 0)]


def test_under_wait_nothing_is_placed_twice(episode: Episode) -> None:
    assert episode.stamps.attempts("wait") == [1]
    assert [each[2:] for each in _attempts(episode, "wait")] == [("finished", "exited", 0)]


def test_what_a_dead_node_had_runs_elsewhere_once(episode: Episode) -> None:
    for task in ("dead", "rebooted"):
        assert episode.stamps.attempts(task) == [1, 2]
        assert episode.stamps.overlap_s(task) < 0
        assert _attempts(episode, task)[1][2:] == ("finished", "exited", 0)


def test_nothing_is_left_over(episode: Episode) -> None:
    assert not list(episode.fleet.folder.glob("*/node/leased/*"))
    assert not [each for each in episode.fleet.machines.values() if Home(each.home, each.home).payloads()]


def test_what_the_history_tells_is_whole(episode: Episode) -> None:
    """Each element ended once, and its attempts are numbered from 1 on."""
    view = episode.fleet.get(f"/v1/jobs/{episode.job}")
    assert view["state"] == "succeeded"
    for task in view["tasks"]:
        (element,) = task["elements"]
        assert [attempt["number"] for attempt in element["attempts"]] == episode.stamps.attempts(task["name"])
        assert {attempt["state"] for attempt in element["attempts"]} <= {"finished", "lost"}
