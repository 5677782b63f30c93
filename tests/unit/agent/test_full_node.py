"""Keeper and supervisor on a disk without room: what has ended is kept, what runs is watched, and all of it
is told with all of its output once there is room."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.conformance.runtimes.node import Node, eventually
from tests.conformance.runtimes.registry import process_plan
from tests.small_disk import SmallDisk

from towline.agent.supervision import kernel
from towline.agent.supervision.attempt import OUTPUT_WAITS
from towline.agent.supervision.starting import Evidence
from towline.runtime.port import Plan

pytestmark = pytest.mark.containers  # mounts a filesystem: needs the same rights

PRINTED = b"".join(b"%06d\n" % number for number in range(9_000))
PRINTS_AT_ITS_END = (
    "echo ready; while [ ! -e $TOW_OUT/go ]; do sleep 0.02; done; rm $TOW_OUT/go;"
    "awk 'BEGIN { for (i = 0; i < 9000; i++) printf \"%06d\\n\", i }'; exit 3"
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "disk", "4m") as disk:
        yield disk


@pytest.fixture
def node(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(tempfile, "tempdir", str(disk.folder))
    node = Node(process_plan)
    node.connect()
    yield node
    with suppress(FileNotFoundError):
        disk.free()
    node.close()


def is_zombie_or_gone(pid: int) -> bool:
    process = kernel.process(pid)
    return process is None or process.state == "Z"


def held(node: Node, disk: SmallDisk) -> Plan:
    """An attempt that has ended on a full disk with more output than there is room for."""
    plan = node.plan(PRINTS_AT_ITS_END)
    node.run(plan)
    node.printed(plan, b"ready")
    disk.fill()
    Path(plan.out, "go").touch()
    node.until(lambda: (update := node.updates.get(plan.attempt)) and update.message == OUTPUT_WAITS)
    assert node.state(plan) == "running"
    return plan


def test_an_end_with_unread_output_waits_for_room_and_nothing_else_does(node: Node, disk: SmallDisk) -> None:
    slow = node.plan("sleep 1000", timeout_ms=1_500)
    stopped = node.plan("sleep 1000")
    node.run(slow, stopped)
    node.until(lambda: node.state(stopped) == "running")
    supervisor = node.supervisor
    waits = held(node, disk)
    assert node.ended(slow).reason == "timed_out"
    node.stop(stopped, grace_ms=0)
    assert node.ended(stopped).reason == "cancelled"
    node.stop(waits, grace_ms=0)  # it has ended: that stands
    assert (node.state(waits), node.supervisor) == ("running", supervisor)
    disk.free()
    update = node.ended(waits)
    assert (update.exit_code, update.reason) == (3, "exited")
    assert update.finished_at is not None
    assert node.output(waits) == b"ready\n" + PRINTED
    assert node.supervisor == supervisor


def test_a_supervisor_comes_back_on_a_full_disk_and_goes_on(node: Node, disk: SmallDisk) -> None:
    slow = node.plan("sleep 1000", timeout_ms=3_000)
    node.run(slow)
    node.until(lambda: node.state(slow) == "running")
    waits = held(node, disk)
    for _ in range(2):
        node.kill("supervisor")
        node.connect()
        assert node.updates[waits.attempt].message == OUTPUT_WAITS
    assert node.ended(slow).reason == "timed_out"
    assert "room" not in Path(node.dir, "keeper.log").read_text()
    disk.free()
    assert node.ended(waits).exit_code == 3
    assert node.output(waits) == b"ready\n" + PRINTED
    assert node.result("exit 2").exit_code == 2


def test_what_ended_while_no_supervisor_was_there_waits_for_room_too(node: Node, disk: SmallDisk) -> None:
    plan = node.plan(PRINTS_AT_ITS_END)
    node.run(plan)
    node.printed(plan, b"ready")
    pid = node.processes_of(plan)[0]
    disk.fill()
    node.kill("supervisor")
    Path(plan.out, "go").touch()
    eventually(lambda: is_zombie_or_gone(pid), "its end")
    node.connect()
    assert node.state(plan) == "running"
    disk.free()
    update = node.ended(plan)
    assert (update.state, update.exit_code) == ("finished", 3)
    assert node.output(plan) == b"ready\n" + PRINTED


def test_ends_that_are_held_outlive_keeper_and_supervisor(node: Node, disk: SmallDisk) -> None:
    """Only what was in the pipe goes with the last that held it."""
    waits = held(node, disk)
    node.kill("both")
    node.connect()
    update = node.ended(waits)
    assert (update.state, update.exit_code) == ("finished", 3)
    assert (b"ready\n" + PRINTED).startswith(node.output(waits))
    os.stat(disk.folder / "ballast")  # noqa: PTH116 - it was full all the time


def test_an_end_that_the_keeper_cannot_write_down_is_not_lost(node: Node, disk: SmallDisk) -> None:
    """It has no room taken ahead, as after the ends of thousands: it keeps the end until there is some."""
    orphan = node.plan("echo ready; while [ ! -e $TOW_OUT/go ]; do sleep 0.02; done; exit 4")
    node.run(orphan)
    node.printed(orphan, b"ready")
    pid = node.processes_of(orphan)[0]
    node.kill("supervisor")
    clock = node.plan("sleep 1000", timeout_ms=6_000)  # longer than an end is waited for that nobody has
    node.run(clock)
    node.until(lambda: node.state(clock) == "running")
    os.truncate(Path(node.dir, "exits"), 0)
    disk.fill()
    Path(orphan.out, "go").touch()
    eventually(lambda: is_zombie_or_gone(pid), "its end")
    assert node.ended(clock).reason == "timed_out"
    assert node.state(orphan) == "running"
    node.kill("supervisor")
    node.connect()  # which the keeper notices although the other child stands before it
    assert node.state(orphan) == "running"
    disk.free()
    update = node.ended(orphan)
    assert (update.state, update.exit_code) == ("finished", 4)


def test_room_for_the_ends_of_orphans_is_taken_ahead(node: Node, disk: SmallDisk) -> None:
    plan = node.plan("echo ready; while [ ! -e $TOW_OUT/go ]; do sleep 0.02; done; exit 4")
    node.run(plan)
    node.printed(plan, b"ready")
    node.kill("supervisor")
    node.connect()
    disk.fill()
    Path(plan.out, "go").touch()
    assert node.ended(plan).exit_code == 4
    os.stat(disk.folder / "ballast")  # noqa: PTH116 - it was full all the time


def test_no_child_is_spawned_whose_evidence_could_not_be_told_from_an_old_one(disk: SmallDisk) -> None:
    evidence = Evidence(str(disk.folder))
    evidence.refill(0)
    evidence.refill(1)
    Path(evidence.path(0)).write_bytes(b"")  # as the child of a turn does
    disk.fill()
    evidence.refill(0)
    assert (evidence.ready(0), evidence.ready(1), evidence.ready(2)) == (False, True, False)
    disk.free()
    assert evidence.ready(2)
    assert evidence.spawned_at_ms(2) is None


def crowded(node: Node, disk: SmallDisk, timeout_ms: int) -> tuple[Plan, int, dict[str, str]]:
    """Something runs on a disk that is full by now: its plan, the supervisor, an environ for large plans."""
    slow = node.plan("sleep 1000", timeout_ms=timeout_ms)
    node.run(slow)
    node.until(lambda: node.state(slow) == "running")
    disk.fill()
    return slow, node.supervisor, {**slow.env, "FILL": "x" * 10_000}


def test_what_is_to_start_takes_no_room_of_the_ends(node: Node, disk: SmallDisk) -> None:
    """Plans may be large, and an agent may have many of them by the time it says that its disk is full."""
    slow, supervisor, environ = crowded(node, disk, timeout_ms=4_000)
    late = [node.plan("exit 0", env=environ) for _ in range(300)]
    for plan in late:
        node.run(plan)
    ends = [node.ended(plan) for plan in late]
    reasons = [str(end.reason) for end in ends]
    assert set(reasons) <= {"exited", "disk_full"}  # the first ones may still find what they need
    assert reasons[100:] == ["disk_full"] * 200
    assert node.ended(slow).reason == "timed_out"
    assert node.supervisor == supervisor
    node.kill("supervisor")
    node.connect()
    assert node.updates[late[-1].attempt] == ends[-1]
    disk.free()
    assert node.result("exit 2").exit_code == 2


def test_however_many_are_refused_the_room_of_the_ends_stays(node: Node, disk: SmallDisk) -> None:
    slow, supervisor, environ = crowded(node, disk, timeout_ms=600_000)
    for _ in range(30):
        late = [node.plan("exit 0", env=environ) for _ in range(100)]
        for plan in late:
            node.run(plan)
        ends = [str(node.ended(plan).reason) for plan in late]
    assert set(ends) == {"disk_full"}
    assert node.supervisor == supervisor
    node.stop(slow)
    assert node.ended(slow).reason == "cancelled"
    disk.free()
    assert node.result("exit 2").exit_code == 2
