"""What attempts print, to the last byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conformance.runtimes.node import Node

from towline import logs


def test_both_streams(node: Node) -> None:
    plan = node.plan("echo out; echo err >&2; printf 'no newline'")
    node.run(plan)
    node.ended(plan)
    assert node.output(plan) == b"out\nno newline"
    assert node.output(plan, "stderr") == b"err\n"


def test_silence_makes_no_files(node: Node) -> None:
    plan = node.plan("true")
    node.run(plan)
    node.ended(plan)
    assert not Path(plan.logs).exists()
    assert not Path(plan.out).exists()


def test_binary_output(node: Node) -> None:
    plan = node.plan("head -c 3000001 /dev/urandom > $TOW_OUT/copy; cat $TOW_OUT/copy")
    node.run(plan)
    assert node.ended(plan).exit_code == 0
    assert node.output(plan) == Path(plan.out, "copy").read_bytes()


def test_streams_may_be_reopened(node: Node) -> None:
    """The shell opens the file behind /dev/stderr anew: nothing that was there before is lost."""
    plan = node.plan(
        "echo one >&2; echo two > /dev/stderr; echo three >&2; echo four > /dev/stdout; echo five"
    )
    node.run(plan)
    assert node.ended(plan).exit_code == 0
    assert node.output(plan, "stderr") == b"one\ntwo\nthree\n"
    assert node.output(plan) == b"four\nfive\n"


def test_a_flood_is_cut_and_counted(node: Node) -> None:
    plan = node.plan("head -c 5000000 /dev/zero; echo last >&2", max_log_bytes=1 << 20)
    node.run(plan)
    assert node.ended(plan).exit_code == 0
    out = node.output(plan)
    assert out.startswith(bytes(1 << 20) + b"\n[towline: 3951424 bytes of stdout were dropped here")
    assert logs.dropped(plan.logs) == (5_000_000 - (1 << 20), 5)


def test_a_flood_under_the_limit_is_whole(node: Node) -> None:
    plan = node.plan("head -c 40000000 /dev/zero")
    node.run(plan)
    assert node.ended(plan).exit_code == 0
    assert logs.size(plan.logs, "stdout") == 40_000_000
    assert logs.dropped(plan.logs) == (0, 0)


@pytest.mark.thorough
def test_a_flood_does_not_starve_the_others(node: Node) -> None:
    flood = node.plan("while :; do head -c 100000000 /dev/zero; done", max_log_bytes=1 << 20)
    node.run(flood)
    node.printed(flood, b"\0")
    for n in range(5):
        plan = node.plan(f"echo {n}")
        node.run(plan)
        assert node.ended(plan).exit_code == 0
        assert node.output(plan) == b"%d\n" % n
    node.until(lambda: node.state(flood) == "running")
    node.stop(flood, grace_ms=0)
    assert node.ended(flood).signal == 9


def test_output_has_its_times(node: Node) -> None:
    plan = node.plan("echo first; while [ ! -e $TOW_OUT/go ]; do sleep 0.02; done; echo second")
    node.run(plan)
    node.printed(plan, b"first")
    node.until(lambda: node.state(plan) == "running")
    Path(plan.out, "go").touch()
    update = node.ended(plan)
    index = logs.read(plan.logs, "stdout", 0, 100).index
    assert [offset for offset, _ in index] == [0, 6]
    assert update.started_at is not None
    assert update.finished_at is not None
    assert update.started_at <= index[0][1] < index[1][1] <= update.finished_at


@pytest.mark.supervision
def test_pipes_are_used_again_without_mixing(node: Node) -> None:
    for n in range(20):
        plan = node.plan(f"echo {n}; (sleep 0.02; echo late {n}) & true")
        node.run(plan)
        node.ended(plan)
        # On a busy machine the child may have spoken before it was killed.
        assert node.output(plan) in (b"%d\n" % n, b"%d\nlate %d\n" % (n, n))
