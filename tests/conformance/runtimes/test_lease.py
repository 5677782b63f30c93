"""The node lease with every supervised runtime: keeper and supervisor each end what is past it, alone."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest
from tests.conformance.runtimes.node import Node, eventually

from towline.agent.supervision import kernel
from towline.agent.supervision.leasing.files import LeasedFolder, LeaseFile
from towline.core.commands import AttemptUpdate
from towline.core.lease import Lease
from towline.runtime.port import Plan

pytestmark = pytest.mark.supervision

SINCE_MS = 7
LONG_MS = 600_000
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
WAITS = "echo ready; while [ ! -e $TOW_OUT/go ]; do sleep 0.02; done; exit 5"


@pytest.fixture
def frozen() -> Iterator[list[int]]:
    """Processes that a test has stopped, to be woken for its end."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def grant(node: Node, left_ms: int) -> None:
    """From now on, and not a moment longer unless it is granted again."""
    LeaseFile(node.dir).write(Lease(1, SINCE_MS, kernel.boottime_ms() + left_ms, 300))


def running(node: Node, script: str = WAITS, lease_ms: int = SINCE_MS) -> Plan:
    plan = node.plan(script, lease_ms=lease_ms)
    node.run(plan)
    node.printed(plan, b"ready")
    return plan


def how(update: AttemptUpdate) -> tuple[str, str | None]:
    return update.state, update.reason


def test_it_ends_with_the_lease_and_what_needs_none_goes_on(node: Node) -> None:
    grant(node, LONG_MS)
    plain, stubborn, free = running(node), running(node, STUBBORN), running(node, lease_ms=0)
    assert set(LeasedFolder(node.dir).names()) == {plain.attempt, stubborn.attempt}
    grant(node, 0)
    assert how(node.ended(plain)) == how(node.ended(stubborn)) == ("lost", "lease_expired")
    assert not node.processes_of(plain) + node.processes_of(stubborn)
    assert not LeasedFolder(node.dir).names()
    assert node.processes_of(free)
    assert node.state(free) == "running"
    node.stop(free, grace_ms=0)
    node.ended(free)


@pytest.mark.parametrize("victim", ["supervisor", "keeper"])
def test_each_ends_it_while_the_other_is_frozen(node: Node, frozen: list[int], victim: str) -> None:
    grant(node, LONG_MS)
    plan = running(node, STUBBORN)
    frozen.append(getattr(node, victim))
    os.kill(frozen[0], signal.SIGSTOP)
    grant(node, 0)
    eventually(lambda: not node.processes_of(plan), "it lives on")
    grant(node, LONG_MS)  # too late: it has to stay dead, and told so
    if victim == "keeper":
        os.kill(frozen[0], signal.SIGCONT)
    assert how(node.ended(plan)) == ("lost", "lease_expired")


@pytest.mark.parametrize("victim", ["supervisor", "keeper", "both"])
def test_who_comes_after_the_dead_ends_it(node: Node, victim: str) -> None:
    grant(node, LONG_MS)
    plan = running(node, STUBBORN)
    grant(node, 0)
    node.kill(victim)
    assert how(node.ended(plan)) == ("lost", "lease_expired")
    assert not node.processes_of(plan)
