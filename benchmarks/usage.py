"""What `tow top` costs a node: one answer about a thousand attempts, in cgroups and as plain processes."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.figures import Options, Report, median_of
from towline.agent.capacity import NodeUsage
from towline.core.agent.machine import AgentMachine
from towline.core.commands import AttemptUpdate, attempt_id
from towline.model.states import AttemptState
from towline.runtime.cgroups import cgroup_name, find_cgroups
from towline.wire.messages import encode
from towline.wire.usage import ReadUsage

COUNT = 1_000
ANSWERS = 10


def run(options: Options) -> Report:
    """CPU of this process for each answer, made into its message."""
    count = options.count(COUNT)
    updates = [
        AttemptUpdate(attempt=attempt_id(("bench", 0, index, 1)), state=AttemptState.RUNNING, started_at=1)
        for index in range(count)
    ]
    with tempfile.TemporaryDirectory(prefix="tow-bench-") as folder, ExitStack() as stack:
        node_dir = Path(folder)
        usage = NodeUsage(node_dir, AgentMachine())
        stack.enter_context(_processes(node_dir, count))
        plain = [_answer_ms(usage, updates) for _ in range(ANSWERS)]
        stack.enter_context(_cgroups(folder, updates))
        contained = [_answer_ms(usage, updates) for _ in range(ANSWERS)]
    figures = [
        median_of("containers, by their cgroups", contained, "ms", most=50),
        median_of("runtime process, by /proc", plain, "ms", most=50),
    ]
    method = (
        f"CPU of one answer about {count:,} attempts, as the agent gives it, {ANSWERS} times; asked once a "
        f"second, 50 ms are 5 % of a core"
    )
    return Report(name="usage", title="what `tow top` costs a node", method=method, figures=figures)


def _answer_ms(usage: NodeUsage, updates: list[AttemptUpdate]) -> float:
    begin = time.process_time()
    answer = usage.read(ReadUsage(request=1), updates)
    encode([answer])
    took_ms = (time.process_time() - begin) * 1000
    if not all(attempt.memory_bytes is not None for attempt in answer.attempts):
        raise RuntimeError("an attempt was not found")
    return took_ms


@contextmanager
def _cgroups(folder: str, updates: list[AttemptUpdate]) -> Generator[None]:
    """Empty ones, of the names that the attempts' would have."""
    cgroups = find_cgroups()
    cgroups.make_parent()
    names = [cgroup_name(update.attempt, folder) for update in updates]
    try:
        for name in names:
            for path in cgroups.folders(name):
                Path(path).mkdir()
        yield
    finally:
        for name in names:
            cgroups.remove(name)


@contextmanager
def _processes(node_dir: Path, count: int) -> Generator[None]:
    started: list[subprocess.Popen[bytes]] = []
    try:
        for index in range(count):
            env = {"PATH": os.environ["PATH"], "TOW_OUT": f"{node_dir}/artifacts/bench/0.attempts/{index}.1"}
            started.append(subprocess.Popen(["sleep", "1000"], env=env, start_new_session=True))
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
