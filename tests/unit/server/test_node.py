"""The agent of this machine: started once, and again when it has died."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from towline.coordination.filelock import FileLease
from towline.server.process.node import AgentProcess, AgentWatch

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    made = AgentProcess(tmp_path, SLEEPER)
    yield made
    if made._process is not None:
        made._process.kill()
        made._process.wait()


def kill(agent: AgentProcess) -> None:
    assert agent._process is not None
    os.kill(agent._process.pid, signal.SIGKILL)
    agent._process.wait()


def test_one_is_started_and_started_again_after_its_death(agent: AgentProcess, tmp_path: Path) -> None:
    assert not agent.alive
    assert agent.ensure()
    assert agent.alive
    assert not agent.ensure()
    agent.is_well()
    kill(agent)
    assert not agent.alive
    assert agent.ensure()
    assert (tmp_path / "logs" / "agent.log").exists()


def test_one_that_dies_at_once_is_not_started_without_end(agent: AgentProcess) -> None:
    assert agent.ensure()
    kill(agent)
    assert not agent.ensure()


def test_one_that_an_earlier_server_started_is_left_alone(agent: AgentProcess, tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    lock = FileLease(tmp_path / "node" / "agent.lock")
    assert lock.try_acquire()
    assert agent.alive
    assert not agent.ensure()
    lock.release()
    assert agent.ensure()


async def test_a_linked_node_is_left_alone(agent: AgentProcess) -> None:
    watch = AgentWatch(agent, asyncio.Event())
    watch.look(links=1)
    assert not agent.alive
    watch.look(links=0)
    assert agent.alive


async def test_a_watch_goes_on_where_there_is_no_folder_for_its_log(tmp_path: Path) -> None:
    watch = AgentWatch(AgentProcess(tmp_path / "gone", SLEEPER), asyncio.Event())
    watch.look(0)
    watch.look(0)
