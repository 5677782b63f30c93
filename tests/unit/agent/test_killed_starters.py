"""crun itself is killed by somebody, at several points of a start: lost, and over before that is told."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conformance.runtimes.node import Node
from tests.conformance.runtimes.oci_case import prepare_oci
from tests.conformance.runtimes.registry import MakePlan

pytestmark = pytest.mark.containers

NEVER_BEGAN = "kill -{signal} $$"
ALREADY_RUNS = '{crun} "$@"; kill -{signal} $$'
SAID_WHY = 'echo it is broken > "${{4#--log=file:}}"; kill -{signal} $$'
KILLS = """#!/bin/sh
case " $* " in *" run "*) echo "$@" > {folder}/arguments; {kill} ;; esac
exec {crun} "$@"
"""


@pytest.fixture(scope="module")
def make_plan(tmp_path_factory: pytest.TempPathFactory) -> MakePlan:
    return prepare_oci(tmp_path_factory.mktemp("oci"))


@pytest.fixture
def node_where(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Node]]:
    """Makes a node on which ``crun run`` does this."""
    nodes: list[Node] = []

    def made(kill: str, signal: int = 9) -> Node:
        crun = shutil.which("crun")
        program = tmp_path / "crun"
        program.write_text(
            KILLS.format(kill=kill.format(crun=crun, signal=signal), crun=crun, folder=tmp_path)
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        nodes.append(Node(make_plan))
        nodes[0].connect()
        return nodes[0]

    yield made
    for node in nodes:
        node.close()


@pytest.mark.parametrize("kill", [NEVER_BEGAN, ALREADY_RUNS])
@pytest.mark.parametrize("signal", [9, 15])
def test_a_container_whose_starter_was_killed_is_lost(
    node_where: Callable[..., Node], kill: str, signal: int
) -> None:
    node = node_where(kill, signal)
    # a name that no other run has at the same time, since its processes are looked for by it
    plan = node.plan("sleep 1000", attempt=f"{secrets.token_hex(8)}-0-0-1")
    node.run(plan)
    update = node.ended(plan)
    assert (update.state, update.reason) == ("lost", "supervision_lost")
    assert update.message == f"crun was killed by signal {signal} while it started the container."
    assert not node.processes_of(plan), "it was told to be lost while it ran"
    assert not Path(plan.directory).exists()


def test_a_crash_of_the_starter_is_no_loss(node_where: Callable[..., Node]) -> None:
    """It would crash again."""
    update = node_where(NEVER_BEGAN, 11).result("true")
    assert (update.state, update.reason) == ("finished", "start_failed")
    assert "killed by signal 11" in (update.message or "")


def test_what_a_killed_starter_has_said_counts(node_where: Callable[..., Node]) -> None:
    update = node_where(SAID_WHY).result("true")
    assert (update.state, update.reason) == ("finished", "start_failed")
    assert "it is broken" in (update.message or "")


def test_a_stop_of_what_was_starting_stays_a_stop(node_where: Callable[..., Node], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    node = node_where(f"read line < {tmp_path}/gate; {NEVER_BEGAN}")
    plan = node.plan("sleep 1000")
    node.run(plan)
    with (tmp_path / "gate").open("w") as gate:  # opened when crun waits
        node.stop(plan)
        gate.write("go\n")
    update = node.ended(plan)
    assert (update.state, update.reason) == ("finished", "cancelled")
