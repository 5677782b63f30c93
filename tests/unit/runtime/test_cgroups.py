"""Counters of both versions of cgroups are read alike. What only another kernel has is a tree of files
with its content; what this one has is read in test_oci."""

from __future__ import annotations

from pathlib import Path

import pytest

from towline.runtime.cgroups import Cgroups, find_cgroups
from towline.runtime.port import Usage

HYBRID = """23 1 254:0 / / rw - ext4 /dev/vda rw
30 23 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
34 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
35 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""


def write(root: Path, **files: str) -> None:
    root.mkdir(parents=True)
    for name, content in files.items():
        (root / name.replace("__", ".")).write_text(content)


@pytest.fixture
def version_2(tmp_path: Path) -> Cgroups:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    return find_cgroups(tmp_path)


def test_version_2_is_one_hierarchy(version_2: Cgroups, tmp_path: Path):
    assert version_2.version == 2
    assert version_2.folders("a") == [f"{tmp_path}/towline/a"]
    assert version_2.missing() == []


def test_version_2_without_a_controller(tmp_path: Path):
    (tmp_path / "cgroup.controllers").write_text("cpu pids\n")
    assert find_cgroups(tmp_path).missing() == ["memory"]


def test_counters_of_version_2(version_2: Cgroups, tmp_path: Path):
    write(
        tmp_path / "towline/a",
        memory__peak="1234567\n",
        memory__events="low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\noom_group_kill 0\n",
        cpu__stat="usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\n",
        cgroup__procs="7\n8\n",
    )
    assert version_2.usage("a") == Usage(peak_memory_bytes=1234567, cpu_ms=1234, oom_killed=True)
    assert version_2.processes("a") == [7, 8]


def test_an_old_kernel_does_not_know_the_peak(version_2: Cgroups, tmp_path: Path):
    write(tmp_path / "towline/a", memory__events="oom 0\noom_kill 0\n", cpu__stat="usage_usec 999\n")
    assert version_2.usage("a") == Usage(peak_memory_bytes=None, cpu_ms=0, oom_killed=False)


def test_a_cgroup_that_is_gone_tells_nothing(version_2: Cgroups):
    assert version_2.usage("a") == Usage()
    assert version_2.processes("a") is None
    assert version_2.remove("a")


def test_hybrid_counts_in_its_version_1_hierarchies(tmp_path: Path):
    cgroups = find_cgroups(tmp_path, HYBRID)
    assert cgroups.version == 1
    assert cgroups.missing() == []
    assert cgroups.folders("a") == [
        "/sys/fs/cgroup/cpu,cpuacct/towline/a",
        "/sys/fs/cgroup/memory/towline/a",
        "/sys/fs/cgroup/pids/towline/a",
        "/sys/fs/cgroup/systemd/towline/a",
    ]


def test_counters_of_version_1(tmp_path: Path):
    cgroups = find_cgroups(tmp_path, HYBRID.replace("/sys/fs/cgroup", str(tmp_path)))
    write(
        tmp_path / "memory/towline/a",
        memory__max_usage_in_bytes="4096\n",
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        cgroup__procs="",
    )
    write(tmp_path / "cpu,cpuacct/towline/a", cpuacct__usage="2500000\n")
    assert cgroups.usage("a") == Usage(peak_memory_bytes=4096, cpu_ms=2, oom_killed=True)
    assert cgroups.processes("a") == []
    assert not cgroups.limits_swap


def test_no_cgroups_at_all(tmp_path: Path):
    with pytest.raises(OSError, match="no cgroup hierarchy"):
        find_cgroups(tmp_path, "23 1 254:0 / / rw - ext4 /dev/vda rw\n")
