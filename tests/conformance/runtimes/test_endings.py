"""How attempts end, and what is told of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conformance.runtimes.node import Node

from towline.agent import control
from towline.model.states import Reason


def test_exit_codes(node: Node) -> None:
    plans = {code: node.plan(f"exit {code}") for code in (0, 1, 42, 255)}
    node.run(*plans.values())
    for code, plan in plans.items():
        update = node.ended(plan)
        how = (update.state, update.reason, update.exit_code, update.signal)
        assert how == ("finished", "exited", code, None)
        assert update.started_at is not None
        assert update.finished_at is not None
        assert update.started_at <= update.finished_at


def test_a_command_that_is_not_there(node: Node) -> None:
    update = node.result("", argv=("no-such-command", "--flag"))
    assert (update.state, update.reason, update.exit_code) == ("finished", "start_failed", None)
    assert update.message is not None
    assert "no-such-command" in update.message


@pytest.mark.supervision
def test_a_runtime_that_is_not_there(node: Node) -> None:
    update = node.result("true", runtime="teleport")
    assert update.reason == Reason.START_FAILED
    assert update.message == "this node has no runtime 'teleport'"


def test_counts_cpu_time(node: Node) -> None:
    update = node.result("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
    assert update.cpu_ms is not None
    assert update.cpu_ms > 10


def test_many_at_once(node: Node) -> None:
    plans = [node.plan(f"echo {n}; exit {n % 5}") for n in range(12)]
    node.run(*plans)
    for n, plan in enumerate(plans):
        assert node.ended(plan).exit_code == n % 5
        assert node.output(plan) == b"%d\n" % n


def test_an_attempt_is_never_run_twice(node: Node) -> None:
    plan = node.plan("echo run >> $TOW_OUT/runs; exit 9")
    node.run(plan, plan)
    node.run(plan)
    assert node.ended(plan).exit_code == 9
    node.run(plan)
    last = node.plan("true")
    node.run(last)
    node.ended(last)
    assert Path(plan.out, "runs").read_text() == "run\n"


def test_running_is_told_of_long_ones_only(node: Node) -> None:
    long = node.plan("while [ ! -e $TOW_OUT/go ]; do sleep 0.02; done")
    node.run(long)
    node.until(lambda: node.state(long) == "running")
    started_at = node.updates[long.attempt].started_at
    Path(long.out, "go").touch()
    assert node.ended(long).started_at == started_at


def test_what_is_forgotten_leaves_the_journal(node: Node) -> None:
    plans = [node.plan("true"), node.plan("true")]
    node.run(*plans)
    for plan in plans:
        node.ended(plan)
    node.send(control.Forget(attempts=(plans[0].attempt, "never-heard-0-of-1")))
    last = node.plan("true")
    node.run(last)
    node.ended(last)
    for _ in range(2):
        node.updates.clear()
        node.connect()
        assert set(node.updates) == {plans[1].attempt, last.attempt}
        node.kill("supervisor")
    assert len(set(node.instances)) == 1


def test_a_new_agent_takes_the_place_of_the_old(node: Node) -> None:
    plan = node.plan("echo yes; exit 3")
    node.run(plan)
    node.connect()
    if plan.attempt not in node.updates:  # what the snapshot does not have was never read: it is sent again
        node.run(plan)
    assert node.ended(plan).exit_code == 3
