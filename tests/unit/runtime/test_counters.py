"""Counters of cgroups of each version, and of processes without one."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from towline.runtime.cgroups import Cgroups
from towline.runtime.counters import CgroupCounters, Counters, ProcessCounters, machine_load

V1 = {
    "cpuacct/towline/a.1/cpuacct.usage": "2500000000\n",
    "memory/towline/a.1/memory.usage_in_bytes": "4096\n",
    "memory/towline/a.1/memory.max_usage_in_bytes": "8192\n",
    "pids/towline/a.1/pids.current": "3\n",
}
V2 = {
    "towline/a.1/cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
    "towline/a.1/memory.current": "4096\n",
    "towline/a.1/memory.peak": "8192\n",
    "towline/a.1/pids.current": "3\n",
}


def laid_out(root: Path, files: dict[str, str], version: int) -> CgroupCounters:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    mounts = (
        {name: f"{root}/{name}" for name in ("cpuacct", "memory", "pids")}
        if version == 1
        else {"": str(root)}
    )
    return CgroupCounters(Cgroups(version, mounts, limits_swap=False))


@pytest.mark.parametrize(("version", "files"), [(1, V1), (2, V2)])
def test_each_version_is_read(tmp_path: Path, version: int, files: dict[str, str]) -> None:
    counters = laid_out(tmp_path, files, version)
    assert counters.read("a.1") == Counters(2_500_000, 4096, 8192, 3)
    assert counters.read("a.2") is None


def test_what_an_older_kernel_does_not_count_is_unknown(tmp_path: Path) -> None:
    without = {name: text for name, text in V2.items() if "peak" not in name}
    assert laid_out(tmp_path, without, 2).read("a.1") == Counters(2_500_000, 4096, None, 3)


def test_processes_are_counted_by_their_tow_out(tmp_path: Path) -> None:
    """With those that they have started, also in a session of their own."""
    script = "setsid sleep 60 & i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo $!; wait"
    env = {"PATH": os.environ["PATH"], "TOW_OUT": f"{tmp_path}/job/0.attempts/3.1"}
    reader = ProcessCounters(str(tmp_path))
    with subprocess.Popen(
        ["sh", "-c", script], env=env, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            found = reader.read()
            assert reader.read().keys() == found.keys() == {"job/0.attempts/3.1"}
            counters = found["job/0.attempts/3.1"]
            assert counters.pids == 2
            assert counters.cpu_us
            assert counters.memory_bytes
        finally:
            os.kill(child, signal.SIGKILL)
            process.kill()


def test_a_child_is_asked_again_once_it_has_executed_its_program(tmp_path: Path) -> None:
    """A look may come between the two."""
    reader = ProcessCounters(str(tmp_path))
    out = f"{tmp_path}/job/0.attempts/3.1"
    script = f"read go; exec env TOW_OUT={out} sh -c 'echo there; read go'"
    with subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert reader.read() == {}
        process.stdin.write(b"go\n")
        process.stdin.flush()
        process.stdout.readline()
        assert reader.read().keys() == {"job/0.attempts/3.1"}
        process.kill()


def test_the_machine_has_a_load() -> None:
    load = machine_load()
    assert 0 < load.memory_used_bytes < load.memory_bytes
    assert load.busy_us > 0
    assert load.cpus >= 1
