"""The node lease on the node; what conformance asks of every runtime is not asked again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.runtimes.node import Node, eventually
from tests.conformance.runtimes.registry import process_plan

from towline.agent.supervision import kernel
from towline.agent.supervision.leasing.files import Entry, LeasedFolder, LeaseFile, kill
from towline.core.commands import AttemptUpdate
from towline.core.lease import Lease
from towline.runtime.port import Plan

SINCE_MS = 7
LONG_MS, SHORT_MS = 600_000, 1_500
WAITS = "echo ready; while [ ! -e $TOW_OUT/go ]; do sleep 0.02; done; exit 5"


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node(process_plan)
    node.connect()
    yield node
    for pid in (node.supervisor, node.keeper):
        os.kill(pid, signal.SIGCONT)
    node.close()


def grant(node: Node, left_ms: int, since_ms: int = SINCE_MS) -> None:
    """From now on, and not a moment longer unless it is granted again."""
    LeaseFile(node.dir).write(Lease(1, since_ms, kernel.boottime_ms() + left_ms, 300))


def running(node: Node, script: str = WAITS, lease_ms: int = SINCE_MS) -> Plan:
    plan = node.plan(script, lease_ms=lease_ms)
    node.run(plan)
    node.printed(plan, b"ready")
    return plan


def how(update: AttemptUpdate) -> tuple[str, str | None]:
    return update.state, update.reason


def entries(node: Node) -> list[str]:
    return list(LeasedFolder(node.dir).names())


def test_a_lease_that_goes_on_ends_nothing(node: Node) -> None:
    grant(node, LONG_MS)
    plan = running(node)
    for left_ms in (SHORT_MS, LONG_MS):
        grant(node, left_ms)
    Path(plan.out, "go").touch()
    assert node.ended(plan).exit_code == 5
    assert not entries(node)


@pytest.mark.parametrize("since_ms", [SINCE_MS, SINCE_MS + 1])
def test_nothing_starts_after_its_lease_or_in_a_later_one(node: Node, since_ms: int) -> None:
    grant(node, 0 if since_ms == SINCE_MS else LONG_MS, since_ms)
    plan = node.plan("touch $TOW_OUT/ran", lease_ms=SINCE_MS)
    node.run(plan)
    assert how(node.ended(plan)) == ("lost", "lease_expired")
    assert not Path(plan.out, "ran").exists()


def test_an_end_of_its_own_stands(node: Node) -> None:
    grant(node, LONG_MS)
    plan = running(node)
    os.kill(node.supervisor, signal.SIGSTOP)
    Path(plan.out, "go").touch()
    eventually(lambda: all(_is_zombie(pid) for pid in _children(node)), "it goes on")
    grant(node, 0)
    assert node.ended(plan).exit_code == 5


def _children(node: Node) -> list[int]:
    found = ((pid, kernel.process(pid)) for pid in kernel.processes())
    return [pid for pid, process in found if process is not None and process.parent == node.supervisor]


def _is_zombie(pid: int) -> bool:
    process = kernel.process(pid)
    return process is None or process.state == "Z"


def test_the_file_is_believed_only_whole_and_of_this_boot(tmp_path: Path) -> None:
    lease = Lease(4, 1, 2, 3)
    LeaseFile(str(tmp_path)).write(lease)
    assert LeaseFile(str(tmp_path)).held == lease
    path = tmp_path / "lease"
    sound = path.read_bytes()
    other_boot = sound.replace(kernel.boot_id().encode(), b"0" * 36)
    for data in (b"", sound[:-1], sound[:50] + b"\xff" + sound[51:], other_boot):
        path.write_bytes(data)
        assert LeaseFile(str(tmp_path)).held.until_ms == 0


def test_a_pid_that_came_again_is_not_killed() -> None:
    me = kernel.process(os.getpid())
    child = os.posix_spawn("/bin/sleep", ["sleep", "60"], {}, setsid=True)
    assert me is not None
    try:
        kill([Entry("a", False, child, me.start_ms - 1_000, "", "")])
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        began = kernel.process(child)
        assert began is not None
        kill([Entry("a", False, child, began.start_ms, "", "")])
    finally:
        _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
