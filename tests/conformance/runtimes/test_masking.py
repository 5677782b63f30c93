"""Secrets in what an attempt prints, also when those who mask them are killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.runtimes.node import Node, eventually

from towline import logs
from towline.runtime import secrets
from towline.runtime.port import Plan
from towline.runtime.secrets import SecretFiles

VALUE = b"tok-aZ9secret-value"
SPLIT = "printf tok-aZ9; sleep 0.1; echo secret-value; echo tok-aZ9 | tr -d '\\n' >&2; echo secret-value >&2"
FLOOD = """n=0
while [ ! -e $TOW_OUT/go ]; do
  n=$((n+1)); printf "$n tok-"; printf "aZ9secret-value\n"; echo "$n tok-aZ9secret-value" >&2
done"""


@pytest.fixture
def folder(node: Node) -> Iterator[str]:
    written = SecretFiles(node.dir).write("job-0-0-1", {"TOKEN": VALUE + b"\n"}, None)
    yield written
    secrets.remove(written)


def plan_of(node: Node, folder: str, script: str, **fields: object) -> Plan:
    plan = node.plan(script, secrets=folder, **fields)
    assert plan.attempt == "job-0-0-1"
    return plan


def test_a_value_is_masked_over_two_writes(node: Node, folder: str) -> None:
    plan = plan_of(node, folder, SPLIT)
    node.run(plan)
    assert node.ended(plan).exit_code == 0
    assert node.output(plan) == b"***\n"
    assert node.output(plan, "stderr") == b"***\n"
    eventually(lambda: not Path(secrets.output_folder(folder)).exists(), "what it was masked in goes")


@pytest.mark.supervision
def test_kills_lose_double_and_show_nothing(node: Node, folder: str) -> None:
    plan = plan_of(node, folder, FLOOD, max_log_bytes=1 << 30)
    node.run(plan)
    node.printed(plan, b"***")
    for who in ("supervisor", "both", "supervisor", "keeper", "supervisor"):
        before = logs.size(plan.logs, "stdout")
        node.kill(who)
        node.connect()
        eventually(lambda: logs.size(plan.logs, "stdout") > before, "it is followed again")  # noqa: B023
    Path(plan.out, "go").touch()
    assert node.ended(plan).exit_code == 0
    for stream in ("stdout", "stderr"):
        shown = node.output(plan, stream)
        count = shown.count(b"\n")
        assert count > 100
        assert shown == b"".join(b"%d ***\n" % n for n in range(1, count + 1))


def test_what_is_over_the_limit_is_counted_masked(node: Node, folder: str) -> None:
    plan = plan_of(node, folder, "for n in 1 2 3 4 5; do echo tok-aZ9secret-value; done", max_log_bytes=10)
    node.run(plan)
    node.ended(plan)
    shown = node.output(plan)
    assert shown.startswith(b"***\n***\n**\n[towline: 10 bytes of stdout were dropped here")
    assert logs.dropped(plan.logs) == (10, 0)
