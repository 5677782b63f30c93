"""kill -9 of supervisor, keeper and both: nothing that runs is lost, nor what it prints."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.runtimes.node import Node, eventually

from towline.agent.supervision import kernel
from towline.runtime.port import Plan

WHO = ["supervisor", "keeper", "both"]
WAITS = """echo run >> $TOW_OUT/runs; echo before
while [ ! -e $TOW_OUT/go ]; do sleep 0.02; done
echo after; exit 5"""


TAKE_PIDS = """import threading, time
while True:
    for _ in range(60):
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
    time.sleep(0.005)"""


@pytest.fixture
def used_pids(node: Node) -> Iterator[None]:
    """Where there are many kills: pids come round every few seconds, as in a week of a busy machine."""
    if node.kills < 50:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", TAKE_PIDS]) as taking:
        yield
        taking.kill()


def _runs(plan: Plan) -> int:
    path = Path(plan.out, "runs")
    return path.read_text().count("run\n") if path.exists() else 0


@pytest.mark.parametrize("who", WHO)
def test_what_runs_is_adopted(node: Node, who: str) -> None:
    plan = node.plan(WAITS)
    node.run(plan)
    node.printed(plan, b"before")
    node.kill(who)
    node.connect()
    # at once, unless its starter has not ended yet
    node.until(lambda: node.state(plan) == "running")
    Path(plan.out, "go").touch()
    update = node.ended(plan)
    assert (update.state, update.reason, update.exit_code) == ("finished", "exited", 5)
    assert node.output(plan) == b"before\nafter\n"
    assert _runs(plan) == 1


@pytest.mark.parametrize("who", ["supervisor", "keeper"])
def test_an_end_that_nobody_saw_is_known(node: Node, who: str) -> None:
    """It ends as the process is killed: its exit code and its last words are there all the same."""
    plans = [node.plan(WAITS.replace("exit 5", f"exit {n}")) for n in range(5)]
    node.run(*plans)
    for plan in plans:
        node.printed(plan, b"before")
    for plan in plans:
        Path(plan.out, "go").touch()
    node.kill(who)
    for n, plan in enumerate(plans):
        assert node.ended(plan).exit_code == n
        assert node.output(plan) == b"before\nafter\n"


@pytest.mark.thorough
def test_killed_again_and_again(node: Node) -> None:
    plan = node.plan(WAITS)
    node.run(plan)
    node.printed(plan, b"before")
    for who in ("supervisor", "keeper", "supervisor", "both", "keeper", "both", "supervisor"):
        node.kill(who)
        node.connect()
        node.until(lambda: node.state(plan) == "running")
    Path(plan.out, "go").touch()
    assert node.ended(plan).exit_code == 5
    assert node.output(plan) == b"before\nafter\n"


@pytest.mark.supervision
def test_an_end_without_any_witness_is_lost(node: Node) -> None:
    plan = node.plan(WAITS)
    node.run(plan)
    node.printed(plan, b"before")
    pids = node.processes_of(plan)
    node.kill("both")
    Path(plan.out, "go").touch()
    eventually(lambda: not any(map(kernel.process, pids)), "it does not end, or is not reaped")
    update = node.ended(plan)
    assert (update.state, update.reason, update.exit_code) == ("lost", "supervision_lost", None)
    assert node.output(plan).startswith(b"before\n")


@pytest.mark.thorough
@pytest.mark.usefixtures("used_pids")
def test_killed_at_random_moments(node: Node) -> None:
    """Kills while short attempts come and go: each ran at most once, with its own exit code and output."""
    dice = random.Random(20260801)
    plans: list[Plan] = []

    def ended() -> int:
        return sum(update.state in ("finished", "lost") for update in node.updates.values())

    for _ in range(node.kills):
        for _ in range(dice.randrange(1, 6)):
            fresh = [_short(node, len(plans) + n) for n in range(8 - len(plans) + ended())]
            plans += fresh
            node.run(*fresh)
            node.listen()
        more = [_short(node, len(plans) + n) for n in range(dice.randrange(4))]
        plans += more
        node.run(*more)
        node.kill(dice.choice(WHO))
        node.connect()
        node.run(*(plan for plan in plans if plan.attempt not in node.updates))
    node.until(lambda: ended() == len(plans))
    _check(node, plans)
    assert len(set(node.instances)) == 1


def _short(node: Node, n: int) -> Plan:
    return node.plan(
        f"echo run >> $TOW_OUT/runs; echo out {n}; sleep 0.0{n % 4}; echo err {n} >&2; exit {n % 7}",
        attempt=f"many-0-{n}-1",
    )


def _check(node: Node, plans: list[Plan]) -> None:
    lost = 0
    for n, plan in enumerate(plans):
        update = node.updates[plan.attempt]
        assert _runs(plan) <= 1
        if update.state == "lost":
            lost += 1
            continue
        assert (update.reason, update.exit_code) == ("exited", n % 7), update
        if update.message is None:
            assert node.output(plan) == b"out %d\n" % n
            assert node.output(plan, "stderr") == b"err %d\n" % n
        else:
            assert "output may be missing" in update.message
            assert b"[towline: output may be missing here" in node.output(plan, "stderr")
        assert _runs(plan) == 1
    assert lost < len(plans) // 3
