"""What a machine offers, read from files as the kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from towline.agent import capacity
from towline.agent.settings import read_settings
from towline.errors import OperatorError
from towline.runtime.port import Probe

GIB = 1024**3


class Machine:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/meminfo", f"MemFree: 1 kB\nMemTotal:       {24 * GIB // 1024} kB\n")
        self.write("proc/sys/kernel/pid_max", "4194304\n")
        self.write("proc/sys/kernel/threads-max", "100000\n")
        self.write("proc/self/cgroup", "")

    def write(self, name: str, text: str) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_without_limits_offers_all_but_a_reserve(machine: Machine) -> None:
    assert capacity.measure(machine.root) == capacity.Capacity(
        cpu_milli=len(os.sched_getaffinity(0)) * 1000, memory_bytes=24 * GIB - 512 * 1024**2, pids=90_000
    )


def test_version_2_limits_count_from_our_cgroup_to_the_root(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/tow.slice/agent\n")
    machine.write("sys/fs/cgroup/tow.slice/memory.max", f"{2 * GIB}\n")
    machine.write("sys/fs/cgroup/tow.slice/cpu.max", "50000 100000\n")
    machine.write("sys/fs/cgroup/tow.slice/agent/memory.max", "max\n")
    machine.write("sys/fs/cgroup/tow.slice/agent/cpu.max", "max 100000\n")
    machine.write("sys/fs/cgroup/tow.slice/agent/pids.max", "1000\n")
    found = capacity.measure(machine.root)
    assert found == capacity.Capacity(cpu_milli=500, memory_bytes=2 * GIB - 2 * GIB // 10, pids=900), (
        "of a small machine a tenth is left"
    )


def test_version_1_limits_count_too(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "4:memory:/box\n3:cpu,cpuacct:/box\n2:pids:/\n1:name=systemd:/\n")
    machine.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    machine.write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", f"{8 * GIB}\n")
    machine.write("sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", "25000\n")
    machine.write("sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us", "100000\n")
    machine.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    found = capacity.measure(machine.root)
    assert (found.cpu_milli, found.memory_bytes) == (250, 8 * GIB - 512 * 1024**2)


def test_this_machine_can_be_measured() -> None:
    found = capacity.measure()
    assert found.cpu_milli > 0 and found.memory_bytes > 0 and found.pids > 0


def test_a_runtime_that_cannot_run_keeps_its_reason() -> None:
    probes = [
        Probe(name="process", version=None, problem=None),
        Probe(name="oci", version="1", problem="no crun: apt-get install crun"),
    ]
    assert capacity.runtimes(probes) == {"process": None, "oci": "no crun: apt-get install crun"}


class TestSettings:
    def test_the_environment_wins_over_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "agent.toml").write_text(
            'node_cpu = 4\nnode_memory = "16Gi"\nallowed_mounts = ["/data"]\nnode_name = "rack1"\n'
        )
        found = read_settings(tmp_path, {"TOWLINE_NODE_CPU": "500m", "TOWLINE_IDLE_S": "5"})
        assert (found.cpu_milli, found.memory_bytes, found.idle_s) == (500, 16 * GIB, 5.0)
        assert (found.allowed_mounts, found.name) == (("/data",), "rack1")

    def test_silence_means_what_the_machine_has(self, tmp_path: Path) -> None:
        found = read_settings(tmp_path, {})
        assert (found.cpu_milli, found.memory_bytes, found.allowed_mounts) == (None, None, ())
        assert found.idle_s == 60.0

    @pytest.mark.parametrize(
        ("variable", "value", "message"),
        [
            ("TOWLINE_NODE_CPU", "-1", "TOWLINE_NODE_CPU: node_cpu is '-1', but cpu is above 0"),
            ("TOWLINE_NODE_MEMORY", "64 XB", "node_memory is '64 XB', but a size is 64Mi"),
            ("TOWLINE_ALLOWED_MOUNTS", "data", "it is a list of absolute paths"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, variable: str, value: str, message: str) -> None:
        with pytest.raises(OperatorError, match=message):
            read_settings(tmp_path, {variable: value})

    def test_unknown_settings_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "agent.toml").write_text("node_cpus = 4\n")
        with pytest.raises(OperatorError, match=r"no setting 'node_cpus'; known are node_name, node_cpu"):
            read_settings(tmp_path, {})
